"""Differences between groups of methods, with the pretraining or the method as the unit."""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from densessl.d2_transfer.tables import power
from densessl.d2_transfer.tables.spread import within_deviation
from densessl.d2_transfer.tables.t_test import LEVEL, Difference, between, holm

SIGNIFICANT = 0.05
Name = TypeVar("Name", bound=Hashable)
Groups = Mapping[str, Sequence[float]]  # by method, the value of each pretraining


@dataclass(frozen=True)
class Contrast:
    """B − A in points. ``interval`` (of LEVEL, for this comparison alone) and ``p`` are None where
    there is no spread to test with; ``holm`` is p corrected for the comparisons beside it.
    ``detectable``: what would be seen with a chance of 80 %."""

    mean: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    degrees: float | None = None
    detectable: float | None = None
    holm: float | None = None

    @property
    def seen(self) -> bool:
        """Whether the difference is more than chance explains, after the correction."""
        p = self.p if self.holm is None else self.holm
        return p is not None and p <= SIGNIFICANT


def of_methods(a: Groups, b: Groups) -> Contrast | None:
    """The mean of B's methods less that of A's; the unit is the pretraining.

    With x̄ⱼ and sⱼ² of the nⱼ pretrainings of method j, and w of it 1/|B| or −1/|A|: Σ wⱼ x̄ⱼ, its
    variance Σ wⱼ² sⱼ²/nⱼ, and Welch and Satterthwaite's degrees of freedom. So it is a claim about
    these methods: how much methods of a group differ is no part of the spread. None where a side
    has no method.
    """
    if not a or not b:
        return None
    weighted = [(-1 / len(a), list(each)) for each in a.values()]
    weighted += [(1 / len(b), list(each)) for each in b.values()]
    mean = sum(weight * statistics.fmean(values) for weight, values in weighted)
    if min(len(values) for _, values in weighted) < 2:
        return Contrast(mean)
    parts = [
        (weight**2 * statistics.variance(values) / len(values), len(values) - 1)
        for weight, values in weighted
    ]
    variance = sum(part for part, _ in parts)
    if not variance:
        return Contrast(mean)
    from scipy.special import stdtr, stdtrit

    degrees = variance**2 / sum(part**2 / df for part, df in parts)
    error = math.sqrt(variance)
    half = float(stdtrit(degrees, (1 + LEVEL) / 2)) * error
    return Contrast(
        mean,
        (mean - half, mean + half),
        2 * float(stdtr(degrees, -abs(mean) / error)),
        degrees,
        power.smallest_difference(
            sum(map(len, a.values())),
            sum(map(len, b.values())),
            within_deviation([values for _, values in weighted]),
        ),
    )


def of_groups(a: Groups, b: Groups) -> Contrast | None:
    """The same with the method as the unit: Welch's t test of the methods' means.

    A claim about methods of the two kinds, of which these are a sample.
    """
    if not a or not b:
        return None
    sides = [[statistics.fmean(values) for values in side.values()] for side in (a, b)]
    return of_difference(between(*sides))


def of_difference(found: Difference) -> Contrast:
    return Contrast(found.mean, found.interval, found.p, found.degrees)


def corrected(contrasts: Mapping[Name, Contrast]) -> dict[Name, Contrast]:
    """With Holm's correction for their number; what could not be tested stays as it is."""
    tested = {name: each for name, each in contrasts.items() if each.p is not None}
    after = holm([each.p for each in tested.values()])
    together = dict(zip(tested, after, strict=True))
    return {name: replace(each, holm=together.get(name)) for name, each in contrasts.items()}


def prediction_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where one more of them is expected in 95 of 100 cases: x̄ ± t s √(1 + 1/n)."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    n, mean = len(values), statistics.fmean(values)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    return mean - half, mean + half
