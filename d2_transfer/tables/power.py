"""What a comparison of so many pretrainings can see: its power, and the least difference."""

import math

LEVEL = 0.05  # of the test, two-sided
POWER = 0.8


def power(difference: float, n_a: int, n_b: int, deviation: float, level: float = LEVEL) -> float:
    """The chance that Student's two-sided t test of two samples sees a true ``difference``.

    With ν = n_a + n_b − 2 and δ = difference / (deviation · √(1/n_a + 1/n_b)) it is
    1 − F(t) + F(−t), F being the noncentral t distribution of ν degrees of freedom and
    noncentrality δ, and t the (1 − level / 2) quantile of the central one (Cohen 1988, chapter 2).
    ``deviation``: the standard deviation within each sample. There are at least three values.
    """
    from scipy.special import nctdtr, stdtrit

    degrees = n_a + n_b - 2
    t = float(stdtrit(degrees, 1 - level / 2))
    shift = difference / (deviation * math.sqrt(1 / n_a + 1 / n_b))
    return 1 - float(nctdtr(degrees, shift, t)) + float(nctdtr(degrees, shift, -t))


def smallest_difference(
    n_a: int, n_b: int, deviation: float, chance: float = POWER, level: float = LEVEL
) -> float | None:
    """The least true difference that the test sees with that ``chance``; see :func:`power`.

    None where there are fewer than three values in all, or no deviation to reckon with.
    """
    if n_a + n_b < 3 or not deviation > 0:
        return None
    from scipy.optimize import brentq

    high = 1.0  # in units of the deviation
    while power(high, n_a, n_b, 1.0, level) < chance:
        high *= 2
    least = brentq(lambda each: power(each, n_a, n_b, 1.0, level) - chance, 0.0, high)
    return least * deviation
