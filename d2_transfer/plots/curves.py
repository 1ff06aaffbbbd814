"""Training curves: several runs in a plot, the trials of one as their mean with a band."""

import logging
import math
from collections.abc import Sequence

from densessl.core.errors import InputError, unknown

from .model import SPREADS, Line, Plot, PlotPanel, breaks, line_of, running_mean
from .runs import LoggedRun

logger = logging.getLogger("densessl")

LOSSES = ("loss", "total_loss")  # of pretraining, of fine-tuning


def build(
    runs: Sequence[tuple[str, LoggedRun]],
    metrics: Sequence[str] = (),
    x: str = "step",
    smooth: int = 1,
    spread: str = "std",
) -> Plot:
    """A panel for each metric, with a line for each named run that has it.

    ``metrics``: default: the losses. ``x``: ``step``, or the lines' ``epoch``. ``smooth``: each
    trial's values are running means of so many points. A run of several trials is their mean, at
    each step of those that have a value there, with a band of their ``spread``; where a trial's
    value is not a number there is no mean. Raises InputError for a metric that no run has, and for
    epochs where a run's lines have none.
    """
    known = set().union(*(run.metrics for _, run in runs))
    for metric in metrics:
        if metric not in known:
            raise unknown("metric", metric, known, "--metric")
    chosen = list(dict.fromkeys(metrics)) or _losses(runs, known)
    after = f" (mean of {smooth} points)" if smooth > 1 else ""
    panels = [
        PlotPanel(
            x,
            f"{metric}{after}",
            [_line(*run, metric, x, smooth, spread) for run in runs if metric in run[1].metrics],
        )
        for metric in chosen
    ]
    for panel in panels:
        for line in panel.lines:
            if all(map(math.isnan, line.y)):
                logger.warning("%s: %s is nowhere a number", line.label, panel.y_label)
    plot = Plot(panels, curves=True)
    if any(line.low for panel in panels for line in panel.lines):
        plot.notes.append(f"lines: mean of n trials; bands: {SPREADS[spread]}")
    if any(breaks(line) for panel in panels for line in panel.lines):
        plot.notes.append("×: the value after it is not a number")
    return plot


def _losses(runs: Sequence[tuple[str, LoggedRun]], known: set[str]) -> list[str]:
    """Each run's loss, one name after the other."""
    own = [next((name for name in LOSSES if name in run.metrics), None) for _, run in runs]
    for (name, _), loss in zip(runs, own, strict=True):
        if loss is None:
            raise InputError(
                f"{name} has neither of {', '.join(LOSSES)}; name what to draw with --metric: "
                f"{', '.join(sorted(known))}"
            )
    return [name for name in LOSSES if name in own]


def _line(name: str, run: LoggedRun, metric: str, x: str, smooth: int, spread: str) -> Line:
    """The run's line: at each step the values of all trials that have been there."""
    points: dict[float, list[float]] = {}
    for trial in run.trials:
        series = run.series(trial, metric)
        for step, value in zip(series, running_mean(list(series.values()), smooth), strict=True):
            points.setdefault(step, []).append(value)
    line = line_of(name, points, spread)
    if x == "epoch":
        line.x = _epochs(name, run, line.x)
    return line


def _epochs(name: str, run: LoggedRun, steps: Sequence[float]) -> list[float]:
    epochs: dict[float, float] = {
        step: e for trial in run.trials for step, e in run.series(trial, "epoch").items()
    }
    if any(math.isnan(epochs.get(step, math.nan)) for step in steps):
        raise InputError(f"--x is 'epoch', but {name} has lines without one; allowed there: step")
    return [epochs[step] for step in steps]
