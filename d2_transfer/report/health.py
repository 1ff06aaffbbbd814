"""Is a pretraining well? What its log shows, beside what is normal (docs/methods.md)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .collect import Pretraining

GOOD, EARLY, LOOK, BAD = "as usual", "too early to tell", "worth a look", "bad"
STEPS = 500  # before them a network has not yet left its random start, where embeddings are alike
SHARE = 0.1  # of the lines, at the end, are judged by their mean


@dataclass(frozen=True)
class Indicator:
    """A key of ``metrics.jsonl``: what it is, its normal band, and beyond which it is bad.

    ``band`` and ``alarm`` give (low, high) of a run; None where there is nothing to compare with.
    """

    key: str
    title: str
    why: str
    band: Callable[[Pretraining], tuple[float, float] | None]
    alarm: Callable[[Pretraining], tuple[float, float] | None]
    learnt: bool = False  # it says something only once the network has learnt something


def _fixed(low: float, high: float):
    return lambda run: (low, high)


def _contrast(run: Pretraining) -> tuple[float, float] | None:
    """InfoNCE against K keys that tell nothing is log(K + 1)."""
    queue = run.option("MOCO.QUEUE")
    has_queue = run.method in ("moco", "setsim", "densecl", "houghcl", "resim", "dense", "vader")
    return (0.0, math.log(queue + 1)) if queue and has_queue else None


def _entropy(low: float, high: float):
    def band(run: Pretraining) -> tuple[float, float] | None:
        outputs = run.option("DINO.PROTOTYPES")
        return (low * math.log(outputs), high * math.log(outputs)) if outputs else None

    return band


INDICATORS = (
    Indicator(
        "loss/image",
        "image loss",
        "with a queue of K keys, log(K + 1) is what guessing costs; it rises while real keys fill "
        "the queue, then falls below",
        _contrast,
        lambda run: None,
        learnt=True,
    ),
    Indicator(
        "stat/feature_std",
        "spread of the embeddings",
        "1 is an even spread over the sphere; near 0 all images have one embedding: collapse",
        _fixed(0.5, 1.1),
        _fixed(0.1, math.inf),
        learnt=True,
    ),
    Indicator(
        "stat/teacher_entropy",
        "entropy of the teacher",
        "0 is one output for all images, log K all outputs alike; either end is collapse",
        _entropy(0.02, 0.98),
        _entropy(0.001, 0.9999),
        learnt=True,
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
    """An indicator at the end of a run: its value, the band, and how it looks."""

    indicator: Indicator
    value: float
    band: tuple[float, float] | None
    state: str


def judge(run: Pretraining) -> list[Verdict]:
    """The indicators that the run logged, by the mean of the last tenth of its lines."""
    verdicts = []
    for indicator in INDICATORS:
        _, values = run.series(indicator.key)
        if not values:
            continue
        last = values[-max(round(SHARE * len(values)), 1) :]
        value, band, alarm = sum(last) / len(last), indicator.band(run), indicator.alarm(run)
        state = GOOD
        if band and not band[0] <= value <= band[1]:
            state = LOOK
        if alarm and not alarm[0] <= value <= alarm[1]:
            state = BAD
        if state != GOOD and indicator.learnt and run.step < STEPS:
            state = EARLY
        verdicts.append(Verdict(indicator, value, band, state))
    return verdicts
