"""A comparison in words: what the trials show, and what they do not."""

from .comparison import Comparison
from .t_test import Difference, mean_of

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SEEN = 0.005  # a smaller difference is none with two decimals
EQUAL = 1e-6
WITHOUT_CHANCE = ("knn",)  # protocols whose trials differ by nothing


def verdict(comparison: Comparison) -> str:
    """What the main metric says, in some sentences."""
    found = comparison.differences[comparison.main]
    a, b = comparison.a.name, comparison.b.name
    sentences = [_difference(found, a, b, comparison.main), _test(found, comparison)]
    sentences.append("It says nothing about other pretraining runs.")
    if comparison.mini:
        sentences.append("They are miniatures, whose numbers mean nothing for full trials.")
    return " ".join(sentences)


def remarks(comparison: Comparison) -> list[str]:
    """What stands below the numbers: how they were found, and what does not count."""
    lines = []
    tested = [found for found in comparison.differences.values() if found.interval]
    if any(found.pairs for found in tested):
        lines.append(
            "Paired t test over equal seeds; effect d_z: mean over deviation of the pairs."
        )
    if any(not found.pairs for found in tested):
        lines.append(
            "Welch's t test over all trials (few share a seed, or none); effect d: over the pooled "
            "deviation."
        )
    if len(tested) > 1:
        lines.append(
            f"The verdict is on {comparison.main} alone. The other p values are not corrected for "
            "their number (no Holm correction): read them as description."
        )
    for metric, without in comparison.left_out.items():
        if without:
            lines.append(f"{metric}: {without}; left out.")
    return lines


def p_value(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def points(value: float, sign: str = "") -> str:
    """Two decimals with a true minus; ``sign`` ``+`` has a plus, too. There is no minus zero."""
    return f"{round(value, 2) + 0.0:{sign}.2f}".replace("-", "−")


def _difference(found: Difference, a: str, b: str, metric: str) -> str:
    of_a, of_b = points(mean_of(found.a)), points(mean_of(found.b))
    if abs(found.mean) < SEEN:
        return f"{b} and {a} have the same {metric} in the mean, {of_b}."
    side = "above" if found.mean > 0 else "below"
    return (
        f"{b} is {points(abs(found.mean))} points of {metric} {side} {a} ({of_b} against {of_a})."
    )


def _test(found: Difference, comparison: Comparison) -> str:
    if found.interval is None:
        return _untested(found, comparison)
    low, high = found.interval
    told = f"{_with(found)} the 95 % interval is {points(low)} to {points(high)}"
    if low <= 0 <= high:
        return (
            f"{told}, which holds 0: the trials' spread may explain the difference "
            f"({p_value(found.p)}). That does not show that the two are equal."
        )
    return f"{told}, so the trials' spread does not explain the difference ({p_value(found.p)})."


def _untested(found: Difference, comparison: Comparison) -> str:
    if comparison.protocol in WITHOUT_CHANCE:
        return (
            "Nothing can be said of chance: trials of this protocol do not differ, unless they "
            "start at random."
        )
    if not found.without_spread:
        sides = ((comparison.a.name, found.a), (comparison.b.name, found.b))
        single = " and one of ".join(name for name, values in sides if len(values) < 2)
        return (
            f"Nothing can be said of chance: one trial of {single} has no spread. More trials can "
            "tell: 'densessl transfer … --trials 5'."
        )
    if abs(found.mean) < EQUAL:
        equal = "Each trial equals its partner" if found.pairs else "All trials are equal"
        return f"{equal}: there is nothing to test."
    alike = "Every pair differs by as much" if found.pairs else "The trials of each side are equal"
    return f"{alike}: there is no spread to test with."


def _with(found: Difference) -> str:
    if found.pairs:
        return f"With {_number(found.pairs)} trials each, paired by seed,"
    if len(found.a) == len(found.b):
        return f"With {_number(len(found.a))} trials each"
    return f"With {_number(len(found.a))} and {_number(len(found.b))} trials"


def _number(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)
