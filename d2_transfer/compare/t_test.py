"""Student's t tests of the difference between two small samples: paired, and Welch's."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..tables.spread import mean_and_deviation

LEVEL = 0.95
ROUNDING = 1e-9  # a spread below this share of the values is the floating point's


@dataclass(frozen=True)
class Difference:
    """B − A of one metric, in its own units (points of per cent).

    ``pairs`` is None where the samples are independent. ``interval`` (of level LEVEL), ``p`` (two
    sides), ``t`` and ``degrees`` of freedom are None with too few values, and with values without a
    spread, which leave nothing to test with. ``effect``: Cohen's d_z of pairs (the mean difference
    over the differences' deviation), else Cohen's d (over the pooled deviation).
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    pairs: int | None
    mean: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    t: float | None = None
    degrees: float | None = None
    effect: float | None = None

    @property
    def without_spread(self) -> bool:
        """Enough values for a test, but all alike."""
        counts = (self.pairs,) if self.pairs else (len(self.a), len(self.b))
        return min(counts) > 1 and self.interval is None


def mean_of(values: Sequence[float]) -> float:
    """Their mean."""
    return statistics.fmean(values)


def paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The t test of ``b[i] − a[i]``; there is at least one pair."""
    differences = [y - x for x, y in zip(a, b, strict=True)]
    n = len(differences)
    mean, deviation = mean_and_deviation(differences)
    plain = Difference(tuple(a), tuple(b), n, mean)
    if n < 2 or _is_rounding(deviation, [*a, *b]):
        return plain
    return _tested(plain, deviation / math.sqrt(n), n - 1, mean / deviation)


def welch(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The t test of two independent samples whose variances may differ; neither is empty.

    Its degrees of freedom are Welch and Satterthwaite's.
    """
    (mean_a, deviation_a), (mean_b, deviation_b) = mean_and_deviation(a), mean_and_deviation(b)
    mean = mean_b - mean_a
    plain = Difference(tuple(a), tuple(b), None, mean)
    if min(len(a), len(b)) < 2 or _is_rounding(max(deviation_a, deviation_b), [*a, *b]):
        return plain
    of_a, of_b = deviation_a**2 / len(a), deviation_b**2 / len(b)  # variances of the means
    degrees = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    within = (len(a) - 1) * deviation_a**2 + (len(b) - 1) * deviation_b**2
    pooled = math.sqrt(within / (len(a) + len(b) - 2))
    return _tested(plain, math.sqrt(of_a + of_b), degrees, mean / pooled)


def _is_rounding(deviation: float, values: Sequence[float]) -> bool:
    return deviation <= ROUNDING * max(map(abs, values))


def _tested(plain: Difference, error: float, degrees: float, effect: float) -> Difference:
    """``plain`` with its test; ``error`` is the standard error of its mean."""
    from scipy.special import stdtr, stdtrit

    t = plain.mean / error
    half = float(stdtrit(degrees, (1 + LEVEL) / 2)) * error
    return replace(
        plain,
        interval=(plain.mean - half, plain.mean + half),
        p=2 * float(stdtr(degrees, -abs(t))),
        t=t,
        degrees=float(degrees),
        effect=effect,
    )
