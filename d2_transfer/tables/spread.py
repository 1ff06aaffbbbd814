"""What the trials of one model say of its mean: statistics of small samples."""

import math
import statistics
from collections.abc import Sequence


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (ddof 1), which is NaN for one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), deviation


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
