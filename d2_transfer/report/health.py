"""Is a pretraining well? What its log shows, beside what is normal (docs/methods.md)."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .collect import Pretraining

GOOD, LOOK, BAD = "as usual", "worth a look", "bad"
SHARE = 0.1  # of the lines, at the end, are judged by their mean
COLLAPSED = 0.1  # of the spread of healthy runs: embeddings with less have (as pretrain's own rule)
TIMES = 1.5  # a network that learns is so many times as often right as a guess (the same)
TIMES_POSITIONS = 1.07  # the same, where a guess is right every other time
EVEN = 1.1  # more spread than evenly over the sphere is noise
BANDS = Path(__file__).with_name("bands.json")  # of healthy runs, with the commands that measured

Band = tuple[float, float]


@dataclass(frozen=True)
class Indicator:
    """A key of ``metrics.jsonl``: what it is, its normal band, and beyond which it is bad.

    ``band`` and ``alarm`` give (low, high) of a run; None where there is nothing to compare with.
    ``noticed``: the key under which the run itself wrote the step of its warning, and what happened
    then.
    """

    key: str
    title: str
    why: str
    band: Callable[[Pretraining], Band | None]
    alarm: Callable[[Pretraining], Band | None] = lambda run: None
    noticed: tuple[str, str] | None = None


@lru_cache
def _all_bands() -> dict[str, dict[str, Band]]:
    found = json.loads(BANDS.read_text(encoding="utf-8"))
    return {
        method: {key: (low, high) for key, (low, high) in each["bands"].items()}
        for method, each in found.items()
    }


def healthy(method: str, key: str) -> Band | None:
    """Least and largest mean of a sign over healthy runs of the method.

    Of a method or sign that was not measured, over all methods; None where no run logged the sign.
    """
    bands = _all_bands()
    own = bands.get(method, {})
    found = [each[key] for each in ([own] if key in own else bands.values()) if key in each]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _fixed(low: float, high: float):
    return lambda run: (low, high)


def _spread(run: Pretraining) -> Band | None:
    """At least that of healthy runs; it rises in long ones."""
    found = healthy(run.method, "stat/feature_std")
    return (found[0], EVEN) if found else None


def _collapsed(run: Pretraining) -> Band | None:
    found = _spread(run)
    return (found[0] * COLLAPSED, math.inf) if found else None


def _uniformity(key: str):
    """At most that of healthy runs: 0 is one point; it falls in long ones, to about −4."""

    def band(run: Pretraining) -> Band | None:
        found = healthy(run.method, key)
        return (-4.0, found[1]) if found else None

    return band


def _above_chance(key: str, times: float):
    def band(run: Pretraining) -> Band | None:
        _, values = run.series(key)
        return (min(times * values[-1], 1.0), 1.0) if values else None

    return band


def _entropy(low: float, high: float):
    def band(run: Pretraining) -> Band | None:
        outputs = run.option("DINO.PROTOTYPES")
        return (low * math.log(outputs), high * math.log(outputs)) if outputs else None

    return band


INDICATORS = (
    Indicator(
        "stat/feature_std",
        "spread of the embeddings",
        "1 is an even spread over the sphere; near 0 all images have one embedding: collapse",
        _spread,
        _collapsed,
        ("collapse/spread", "the embeddings collapsed to nearly one point"),
    ),
    Indicator(
        "stat/accuracy",
        "contrast accuracy",
        "how often the other view of an image is nearer than any other image of the batch; below "
        "1.5 times what guessing gives, the network does not tell the images apart",
        _above_chance("stat/chance", TIMES),
        noticed=(
            "collapse/accuracy",
            "the images of a batch were told apart no better than by a guess",
        ),
    ),
    Indicator(
        "stat/positions_accuracy",
        "contrast accuracy of positions",
        "how often the match of a position is nearer than a position of another image; below 1.07 "
        "times what guessing gives, the network does not tell positions apart",
        _above_chance("stat/positions_chance", TIMES_POSITIONS),
        noticed=(
            "collapse/positions_accuracy",
            "positions were told apart no better than by a guess",
        ),
    ),
    Indicator(
        "stat/uniformity",
        "uniformity",
        "how evenly images lie on the sphere, about −4; 0 is one point",
        _uniformity("stat/uniformity"),
    ),
    Indicator(
        "stat/positions_uniformity",
        "uniformity of positions",
        "the same of positions of two images",
        _uniformity("stat/positions_uniformity"),
    ),
    Indicator(
        "stat/teacher_entropy",
        "entropy of the teacher",
        "0 is one output for all images, log K all outputs alike; either end is collapse",
        _entropy(0.02, 0.98),
        _entropy(0.001, 0.9999),
    ),
    Indicator(
        "stat/empty_images",
        "images without a correspondence",
        "they teach nothing",
        _fixed(0.0, 0.1),
        _fixed(0.0, 0.5),
    ),
    Indicator(
        "data_wait",
        "share of time spent waiting for images",
        "more DATA.WORKERS, or shards on a faster disk",
        _fixed(0.0, 0.05),
        _fixed(0.0, 1.0),
    ),
    Indicator(
        "skipped",
        "steps skipped for a loss that was not finite",
        "each is listed in the run's log",
        _fixed(0.0, 0.0),
        _fixed(0.0, math.inf),
    ),
    Indicator(
        "unreadable",
        "unreadable images",
        "each was replaced by another one; unreadable.txt lists them",
        _fixed(0.0, 0.0),
        _fixed(0.0, math.inf),
    ),
)


@dataclass(frozen=True)
class Verdict:
    """An indicator at the end of a run: its value, the band, and how it looks.

    ``noticed``: what the run itself warned of, in words; or nothing.
    """

    indicator: Indicator
    value: float
    band: Band | None
    state: str
    noticed: str = ""


def judge(run: Pretraining) -> list[Verdict]:
    """The indicators that the run logged, by the mean of the last tenth of its lines.

    How few its steps are excuses nothing. What the run warned of itself is bad, unless the end is
    in the band again.
    """
    verdicts = []
    for indicator in INDICATORS:
        _, values = run.series(indicator.key)
        if not values:
            continue
        last = values[-max(round(SHARE * len(values)), 1) :]
        value, band, alarm = sum(last) / len(last), indicator.band(run), indicator.alarm(run)
        state, noticed = GOOD, _noticed(run, indicator)
        inside = not band or band[0] <= value <= band[1]
        if not inside or noticed:
            state = LOOK
        if (alarm and not alarm[0] <= value <= alarm[1]) or (noticed and not inside):
            state = BAD
        if noticed and inside:
            noticed += "; at the end it is as usual again"
        verdicts.append(Verdict(indicator, value, band, state, noticed))
    return verdicts


def _noticed(run: Pretraining, indicator: Indicator) -> str:
    """What happened in words, where the run warned of it itself."""
    if not indicator.noticed:
        return ""
    key, what = indicator.noticed
    _, steps = run.series(key)
    return f"{what} (noticed at step {steps[-1]:.0f})" if steps else ""
