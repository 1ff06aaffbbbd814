"""What the papers' figures have in common: whose trials are drawn, their names, what is said."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..results import Record
from ..tables.experiments import (
    difference,
    number,
    require_different_seeds,
    require_one_experiment,
    which,
)
from ..tables.matching import config_names
from ..tables.pretrainings import control_of, pretrainings, values_of
from .model import SPREADS, Line, line_of

logger = logging.getLogger("densessl")


@dataclass(frozen=True)
class Choice:
    """What of the records is drawn; None: what there is, or what the figure usually has."""

    protocol: str | None = None
    variant: str | None = None
    metric: str | None = None
    spread: str = "std"


def check(trials: Sequence[Record]) -> None:
    """InputError for trials of one model that have no average."""
    require_one_experiment(trials)
    require_different_seeds(trials)


def points_of(trials: Sequence[Record], metric: str) -> list[float]:
    """The values that a point is the mean of: its trials', or several pretrainings' means."""
    values = values_of(trials, metric)
    return [fmean(each) for each in values] if len(values) > 1 else next(iter(values), [])


def line_through(
    label: str, models: Mapping[float, Sequence[Record]], metric: str, spread: str
) -> Line:
    """The line through the means of each x; where a metric is undefined in every trial, a gap."""
    points = {x: points_of(trials, metric) for x, trials in models.items()}
    line = line_of(label, {x: values or [math.nan] for x, values in points.items()}, spread)
    line.counts = [len(points[x]) for x in line.x]
    return line


def names_of(trials: Sequence[Record]) -> tuple[str, ...]:
    """What to call a model, from short to complete."""
    record = trials[0]
    config = next(iter(config_names(record.pretrain)), record.method)
    epochs = number(record.pretrain.get("epochs"))
    facts = [config, str(record.pretrain.get("dataset") or ""), epochs and f"{epochs} epochs"]
    complete = ", ".join(filter(None, facts))
    return record.method, config, complete, f"{complete} [{which(trials)}]"


def labels(names: Sequence[tuple[str, ...]]) -> list[str]:
    """Of each one's names, from short to complete, the shortest that tells all apart."""
    for nth in zip(*names, strict=True):
        if len(set(nth)) == len(nth):
            return list(nth)
    return [own[-1] for own in names]


def y_label(metric: str, record: Record) -> str:
    """The metric, and what it was measured with."""
    measured = f"{record.protocol}, {record.variant}" if record.variant else record.protocol
    return f"{metric} ({measured}{', miniature' if record.mini else ''})"


def notes(lines: Sequence[Line], models: Sequence[Sequence[Record]], spread: str) -> list[str]:
    """What stands below the plot: the bars, and what was not measured alike."""
    found = []
    if any(line.low for line in lines):
        several = any(
            len(pretrainings(trials)) > 1 and not control_of(trials[0]) for trials in models
        )
        of = "pretrainings, or of n trials of one" if several else "trials"
        found.append(f"points: mean of n {of}; bars: {SPREADS[spread]}")
    if different := difference([trials[0] for trials in models]):
        found.append("not all measured under one config")
        logger.warning("not all points were measured under one config: %s", different)
    return found
