"""A comparison in words: what the trials show, and what they do not."""

from ..tables.experiments import counted
from ..tables.spread import DRAWS
from ..tables.t_test import Difference, mean_of, p_value
from .comparison import Comparison

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SEEN = 0.005  # a smaller difference is none with two decimals
EQUAL = 1e-6
WITHOUT_CHANCE = ("knn",)  # protocols whose trials differ by nothing


def verdict(comparison: Comparison) -> str:
    """What the main metric says, in some sentences."""
    found = comparison.differences[comparison.main]
    a, b = comparison.a.name, comparison.b.name
    sentences = [_difference(found, a, b, comparison.main), _test(found, comparison)]
    sentences += _unit(found, comparison)
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
    if any(found.fine_tunings for found in tested):
        lines += _of_pretrainings(tested[0], comparison.differences[comparison.main])
    elif any(not found.pairs for found in tested):
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
    if found.interval is None or found.p is None:
        return _untested(found, comparison)
    low, high = found.interval
    interval = f"{_with(found)} the 95 % interval is {points(low)} to {points(high)}"
    spread = "the spread between pretrainings" if found.fine_tunings else "the trials' spread"
    if low <= 0 <= high:
        return (
            f"{interval}, which holds 0: {spread} may explain the difference "
            f"({p_value(found.p)}). That does not show that the two are equal."
        )
    return f"{interval}, so {spread} does not explain the difference ({p_value(found.p)})."


def _unit(found: Difference, comparison: Comparison) -> list[str]:
    """What the difference is one between: methods, or two pretrained models."""
    sides = (comparison.a, comparison.b)
    if all(side.control for side in sides):
        return ["Each trial starts from a random network of its own."]
    if comparison.of_two_networks:
        return [
            "It is the difference between these two pretrained models, not between methods: it "
            "says nothing about other pretraining runs."
        ]
    sentences = [
        f"{side.name} has one pretraining: this is about that pretrained model, not about the "
        "method."
        for side in sides
        if side.pretrainings == 1 and not side.control
    ]
    if found.detectable is not None:
        of = " and ".join(dict.fromkeys(str(len(each)) for each in (found.a, found.b)))
        metric = comparison.main.rpartition("/")[2]
        sentences.append(
            f"With {of} pretrainings a difference below {points(found.detectable)} {metric} cannot "
            "be seen (80 % power, two-sided 5 %)."
        )
    return sentences


def _of_pretrainings(found: Difference, main: Difference) -> list[str]:
    """How the numbers were found where the unit is the pretraining."""
    how = {
        "welch": "Welch's t test of the pretrainings' means over their fine-tunings",
        "student": "Student's t test, as if the single pretraining were one more of the other side",
    }
    lines = [
        f"Unit: the pretraining; of a random start each trial is one. {how[found.test]}; effect d: "
        "over the pooled deviation between pretrainings."
    ]
    if main.bootstrap:
        low, high = main.bootstrap
        lines.append(
            f"Cluster bootstrap of the main metric's difference ({DRAWS:,} draws of whole "
            f"pretrainings): {points(low)} to {points(high)}; with few pretrainings it is too "
            "narrow, so the verdict is by the t test."
        )
    return lines


def _untested(found: Difference, comparison: Comparison) -> str:
    if comparison.protocol in WITHOUT_CHANCE:
        return (
            "Nothing can be said of chance: trials of this protocol do not differ, unless they "
            "start at random."
        )
    if not found.without_spread and found.fine_tunings:
        return (
            "Nothing can be said of chance: one pretraining on each side has no spread. More "
            "pretrainings can tell: 'densessl pretrain … SEED 1', or more trials of a random start."
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
    alike = "Every pair differs by as much" if found.pairs else "The values of each side are equal"
    return f"{alike}: there is no spread to test with."


def _with(found: Difference) -> str:
    if found.fine_tunings:
        a, b = map(counted, found.fine_tunings)
        return f"With {a} and {b} (pretrainings × fine-tunings)"
    if found.pairs:
        return f"With {_number(found.pairs)} trials each, paired by seed,"
    if len(found.a) == len(found.b):
        return f"With {_number(len(found.a))} trials each"
    return f"With {_number(len(found.a))} and {_number(len(found.b))} trials"


def _number(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)
