"""What a comparison of so many pretrainings can see: its power, and the least difference."""

import math

LEVEL = 0.05  # of the test, two-sided
POWER = 0.8
GRID = 100


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
    below, above = (float(nctdtr(degrees, shift, bound)) for bound in (t, -t))
    # scipy has NaN where a tail is too small for it
    return 1 - (0.0 if math.isnan(below) else below) + (0.0 if math.isnan(above) else above)


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


def smallest_by_welch(
    n: tuple[int, int], deviations: tuple[float, float], level: float = LEVEL
) -> float:
    """The least true difference that Welch's two-sided test of two samples sees with a chance of
    POWER, given both true standard deviations.

    The difference of the means is independent of both samples' variances, so the power is the mean,
    over the variances' distributions (s² ν / σ² is χ² of ν = n − 1), of the chance that it is
    beyond t · √(s_a²/n_a + s_b²/n_b), t of Welch and Satterthwaite's degrees. The mean is taken
    over GRID² evenly spaced pairs of quantiles. Two values or more on each side; a deviation.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import gammaincinv, ndtr, stdtrit

    shares = (np.arange(GRID) + 0.5) / GRID
    of_a, of_b = (  # estimated variances of the means
        deviation**2 / count * 2 * gammaincinv((count - 1) / 2, shares) / (count - 1)
        for deviation, count in zip(deviations, n, strict=True)
    )
    of_a, of_b = of_a[:, None], of_b[None, :]
    degrees = (of_a + of_b) ** 2 / (of_a**2 / (n[0] - 1) + of_b**2 / (n[1] - 1))
    error = math.sqrt(sum(s**2 / count for s, count in zip(deviations, n, strict=True)))
    bound = stdtrit(degrees, 1 - level / 2) * np.sqrt(of_a + of_b) / error

    def lacking(shift: float) -> float:
        return POWER - float((ndtr(shift - bound) + ndtr(-shift - bound)).mean())

    high = 1.0
    while lacking(high) > 0:
        high *= 2
    return brentq(lacking, 0.0, high) * error
