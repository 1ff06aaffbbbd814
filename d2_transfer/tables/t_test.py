"""Student's t tests of the difference between two small samples: paired, Welch's, Student's own."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import power
from .spread import bootstrap_interval, mean_and_deviation, within_deviation

LEVEL = 0.95
EQUAL = 1e-9  # means that differ by less do not differ
ROUNDING = 1e-9  # a spread below this share of the values is the floating point's


@dataclass(frozen=True)
class Difference:
    """B − A of one metric, in its own units (points of per cent).

    ``pairs`` is None where the samples are independent. ``interval`` (of level LEVEL), ``p`` (two
    sides), ``t`` and ``degrees`` of freedom are None with too few values, and with values without a
    spread, which leave nothing to test with. ``effect``: Cohen's d_z of pairs (the mean difference
    over the differences' deviation), else Cohen's d (over the pooled deviation). ``test``: paired,
    welch or student.

    Where the values are pretrainings' means, ``fine_tunings`` says of how many each, ``bootstrap``
    is the cluster bootstrap's interval (:mod:`.spread`), and ``detectable`` the least difference
    that so many pretrainings can show (:mod:`.power`); else they are None.
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
    test: str = "paired"
    fine_tunings: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    bootstrap: tuple[float, float] | None = None
    detectable: float | None = None

    @property
    def without_spread(self) -> bool:
        """Enough values for a test, but all alike."""
        counts = (self.pairs,) if self.pairs else (len(self.a), len(self.b))
        least = max(counts) if self.test == "student" else min(counts)
        return least > 1 and self.interval is None

    @property
    def p_shown(self) -> float | None:
        """``p``, but 1 where nothing has a spread and the two differ in nothing."""
        alike = self.p is None and self.without_spread and abs(self.mean) < EQUAL
        return 1.0 if alike else self.p


def mean_of(values: Sequence[float]) -> float:
    """Their mean."""
    return statistics.fmean(values)


def paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The t test of ``b[i] − a[i]``; there is at least one pair."""
    differences = [y - x for x, y in zip(a, b, strict=True)]
    n = len(differences)
    mean, deviation = mean_and_deviation(differences)
    plain = Difference(tuple(a), tuple(b), n, mean, test="paired")
    if n < 2 or _is_rounding(deviation, [*a, *b]):
        return plain
    return _tested(plain, deviation / math.sqrt(n), n - 1, mean / deviation)


def welch(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The t test of two independent samples whose variances may differ; neither is empty.

    Its degrees of freedom are Welch and Satterthwaite's.
    """
    (mean_a, deviation_a), (mean_b, deviation_b) = mean_and_deviation(a), mean_and_deviation(b)
    mean = mean_b - mean_a
    plain = Difference(tuple(a), tuple(b), None, mean, test="welch")
    if min(len(a), len(b)) < 2 or _is_rounding(max(deviation_a, deviation_b), [*a, *b]):
        return plain
    of_a, of_b = deviation_a**2 / len(a), deviation_b**2 / len(b)  # variances of the means
    degrees = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    within = (len(a) - 1) * deviation_a**2 + (len(b) - 1) * deviation_b**2
    pooled = math.sqrt(within / (len(a) + len(b) - 2))
    return _tested(plain, math.sqrt(of_a + of_b), degrees, mean / pooled)


def student(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The t test of two independent samples of one variance, one of which may be a single value.

    Of a single value it asks whether it may be one more of the other sample. Neither is empty.
    """
    plain = Difference(tuple(a), tuple(b), None, mean_of(b) - mean_of(a), test="student")
    deviation, degrees = within_deviation((a, b)), len(a) + len(b) - 2
    if not degrees or _is_rounding(deviation, [*a, *b]):
        return plain
    error = deviation * math.sqrt(1 / len(a) + 1 / len(b))
    return _tested(plain, error, degrees, plain.mean / deviation)


def between(a: Sequence[float], b: Sequence[float]) -> Difference:
    """The test of two samples of pretrainings' means: Welch's; Student's where one is alone.

    With as many fine-tunings of each pretraining it is the test of the method in a model with a
    random intercept for each pretraining: fine-tunings in a pretraining are averaged first.
    """
    return student(a, b) if min(len(a), len(b)) == 1 else welch(a, b)


def of_pretrainings(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Difference:
    """B − A with the pretraining as the unit: of each its fine-tunings' values, none empty."""
    means_a, means_b = ([mean_of(values) for values in side] for side in (a, b))
    found = between(means_a, means_b)
    deviation = within_deviation((means_a, means_b))
    return replace(
        found,
        fine_tunings=(tuple(map(len, a)), tuple(map(len, b))),
        bootstrap=bootstrap_interval(means_a, means_b),
        detectable=power.smallest_difference(len(a), len(b), deviation),
    )


def holm(values: Sequence[float]) -> list[float]:
    """The p values, corrected for their number (Holm 1979), in their order.

    The k-th smallest of m is (m − k + 1) times itself, and no less than those before it.
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    corrected, before = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        before = max(before, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = before
    return corrected


def p_value(p: float) -> str:
    """``p = 0.023``, or ``p < 0.001``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _is_rounding(deviation: float, values: Sequence[float]) -> bool:
    return deviation <= ROUNDING * max(map(abs, values))


def _tested(plain: Difference, error: float, degrees: float, effect: float) -> Difference:
    """``plain`` with its test; ``error`` is the standard error of its mean."""
    from scipy.special import stdtr, stdtrit  # scipy.stats has the same, and takes longer to import

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
