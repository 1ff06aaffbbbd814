"""What a plot shows, apart from how it is drawn: panels of lines, and what is said below them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..tables.spread import mean_and_deviation

SPREADS = {"std": "± standard deviation", "range": "minimum to maximum"}


@dataclass
class Line:
    """Points from left to right; a ``y`` of NaN is a gap.

    ``low`` and ``high``: the spread of the trials at each point, NaN where there is but one trial;
    both empty where no point has a spread. ``counts``: of the trials at each point, 0 in a gap
    that no trial fills; empty for what has none. ``published``: a paper's numbers, not measured
    here.
    """

    label: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    published: bool = False


@dataclass
class PlotPanel:
    """One pair of axes.

    ``ticks``: the names of x = 0, 1, …, for stages that are no numbers. ``log``: by x their names,
    on an axis that is logarithmic; empty for a linear one.
    """

    x_label: str
    y_label: str
    lines: list[Line]
    ticks: tuple[str, ...] = ()
    log: dict[float, str] = field(default_factory=dict)


@dataclass
class Plot:
    """Panels above each other. ``curves``: lines without a mark at each point, bands, not bars."""

    panels: list[PlotPanel]
    notes: list[str] = field(default_factory=list)
    curves: bool = False


def spread_of(values: Sequence[float], spread: str) -> tuple[float, float, float]:
    """The mean of trials and from where to where they spread, as ``spread`` of SPREADS says.

    The spread of one trial is NaN, and so is everything where a trial has no number.
    """
    if any(map(math.isnan, values)):
        return math.nan, math.nan, math.nan
    mean, deviation = mean_and_deviation(values)
    if len(values) == 1:
        return mean, math.nan, math.nan
    if spread == "range":
        return mean, min(*values, mean), max(*values, mean)  # of equal ones it may be rounded
    return mean, mean - deviation, mean + deviation


def line_of(label: str, points: Mapping[float, Sequence[float]], spread: str) -> Line:
    """The line through the means of the trials' values at each x."""
    places = sorted(points)
    found = [spread_of(points[x], spread) for x in places]
    line = Line(label, list(places), [mean for mean, _, _ in found])
    line.counts = [len(points[x]) for x in places]
    if any(low == low for _, low, _ in found):
        line.low, line.high = [low for _, low, _ in found], [high for _, _, high in found]
    return line


def in_legend(lines: Sequence[Line]) -> dict[str, str]:
    """By label, what the legend calls a line of one or several panels: ``moco (n = 3)``.

    The number of trials stands there where some point has more than one.
    """
    counts: dict[str, set[int]] = {}
    for line in lines:
        counts.setdefault(line.label, set()).update(filter(None, line.counts))  # not of a gap
    texts = {}
    for label, own in counts.items():
        least, most = min(own, default=1), max(own, default=1)
        many = f" (n = {most})" if least == most else f" (n = {least}–{most})"
        texts[label] = f"{label}{many if most > 1 else ''}"
    return texts


def breaks(line: Line) -> list[int]:
    """The places of the values that are followed by one that is not a number."""
    pairs = zip(line.y, line.y[1:], strict=False)
    return [place for place, (y, after) in enumerate(pairs) if y == y and after != after]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """At each value the mean of the last ``window`` of them, itself among them.

    NaN stays NaN and is left out of the means after it; the first values have fewer before them.
    """
    means = []
    for place, value in enumerate(values):
        last = [each for each in values[max(place + 1 - window, 0) : place + 1] if each == each]
        means.append(statistics.fmean(last) if value == value else math.nan)
    return means
