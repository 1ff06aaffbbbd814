"""Means and deviations of small samples, of one level (trials) and of two (pretrainings)."""

import math
import statistics
from collections.abc import Sequence

DRAWS, SEED = 10_000, 0  # of the cluster bootstrap


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


def bootstrap_interval(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, draws: int = DRAWS
) -> tuple[float, float] | None:
    """The cluster bootstrap's percentile interval of mean(b) − mean(a).

    Whole pretrainings are resampled, never single trials.

    ``a`` and ``b`` are the pretrainings' means; a pretraining is drawn with all its fine-tunings
    (Davison and Hinkley 1997, section 3.8), by a fixed seed. It is too narrow for few pretrainings:
    by √((n − 1) / n) on each side. None where a side has but one.
    """
    if min(len(a), len(b)) < 2:
        return None
    import numpy as np

    generator = np.random.default_rng(SEED)
    means = [
        np.asarray(each)[generator.integers(len(each), size=(draws, len(each)))].mean(axis=1)
        for each in (a, b)
    ]
    low, high = np.quantile(means[1] - means[0], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
