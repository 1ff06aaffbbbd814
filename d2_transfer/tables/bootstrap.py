"""The cluster bootstrap of a difference: whole pretrainings are drawn anew, never single trials."""

from collections.abc import Sequence

DRAWS = 10_000
SEED = 0


def interval(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, draws: int = DRAWS
) -> tuple[float, float] | None:
    """The percentile interval of mean(b) − mean(a) when each side's pretrainings are drawn anew.

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
