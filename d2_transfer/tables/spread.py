"""Means and deviations of small samples, of one level (trials) and of two (pretrainings)."""

import math
import statistics
from collections.abc import Sequence


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (ddof 1), which is NaN for one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), deviation


def within_deviation(groups: Sequence[Sequence[float]]) -> float:
    """The pooled standard deviation within groups; NaN where no group has two values.

    √(Σⱼ Σᵢ (xᵢⱼ − x̄ⱼ)² / Σⱼ (nⱼ − 1)), the root of the residual mean square of a one-way analysis
    of variance.
    """
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return math.nan
    squares = sum(
        statistics.variance(group) * (len(group) - 1) for group in groups if len(group) > 1
    )
    return math.sqrt(squares / degrees)


def t_interval(
    mean: float, deviation: float, n: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Student's two-sided confidence interval of the mean of ``n`` normal trials.

    ``mean ± t · deviation / √n`` with the (1 + level) / 2 quantile of n − 1 degrees of freedom;
    None for fewer than two trials, which have no spread.
    """
    if n < 2 or math.isnan(deviation):
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n)
    return mean - half, mean + half
