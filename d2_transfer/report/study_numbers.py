"""What a study's records say: differences, labels saved, slopes, what more runs could show.

The unit is the pretraining, of a random start the network, as in tables and ``compare``.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..results import class_of
from ..tables.power import smallest_by_welch
from ..tables.spread import mean_and_deviation, t_interval
from ..tables.t_test import Difference, holm, mean_of, of_pretrainings, paired
from .study_data import PRETRAINED, RANDOM, Study, StudyArm, StudyShare

LEVEL = 0.05
BETTER, WORSE, UNSEEN, UNTESTED = "better", "worse", "may be chance", "not tested"
FURTHER = (2, 7)  # pretrainings, whose worth a page names
MOST = 50  # further pretrainings; what needs more is not worth the question


@dataclass(frozen=True)
class Compared:
    """A pretrained arm against another one at a share of the labels.

    ``random``: whether that is a random start, or given weights. ``p``: corrected by Holm for all
    comparisons with the other one (``tests`` of them); None where nothing has a spread. ``state``:
    what follows from it. ``level``: what its own p must be below for that.
    """

    arm: str
    other: str
    share: StudyShare
    found: Difference
    random: bool
    p: float | None
    state: str
    level: float
    tests: int


def against(study: Study, kind: str) -> list[Compared]:
    """Every pretrained arm against every arm of ``kind`` at every share where both have values."""
    return [
        each for other in study.of(kind) for each in _against(study, other.name, kind == RANDOM)
    ]


def _against(study: Study, other: str, random: bool) -> list[Compared]:
    pairs = [
        (arm.name, share, found)
        for arm in study.of(PRETRAINED)
        for share in study.shares
        if (found := between(study, arm.name, other, share))
    ]
    before = [found.p_shown for *_, found in pairs]
    after = corrected(before)
    tests = sum(p is not None for p in before)
    return [
        Compared(
            arm,
            other,
            share,
            found,
            random,
            p,
            _state(found, p),
            LEVEL * raw / p if raw and p and p < 1 else LEVEL / max(tests, 1),
            tests,
        )
        for (arm, share, found), raw, p in zip(pairs, before, after, strict=True)
    ]


def between(
    study: Study, arm: str, other: str, share: StudyShare, metric: str = ""
) -> Difference | None:
    """``arm`` less ``other`` at a share; None where one has no value.

    Where each trial draws its own labels, trials of one seed have one draw, whatever they start
    from. So below 100 % they are paired, as every network has one trial there: what a
    draw is worth is in both. Else the networks' means are independent samples.
    """
    ours, theirs = (study.units(each, share, metric) for each in (arm, other))
    if not ours or not theirs:
        return None
    if study.draws(share):
        a, b = (study.by_draw(each, share, metric) for each in (other, arm))
        common = sorted(a.keys() & b.keys())
        if len(common) > 1:
            return paired([a[draw] for draw in common], [b[draw] for draw in common])
    return of_pretrainings(theirs, ours)


def corrected(values: Sequence[float | None]) -> list[float | None]:
    """The p values by Holm's method, those that are None left alone."""
    after = iter(holm([p for p in values if p is not None]))
    return [None if p is None else next(after) for p in values]


def _state(found: Difference, p: float | None) -> str:
    if p is None:
        return UNTESTED
    if p > LEVEL:
        return UNSEEN
    return BETTER if found.mean > 0 else WORSE


@dataclass(frozen=True)
class Outcome:
    """A pretrained arm at a share, against the random starts that were measured.

    ``best``: the comparison with the start whose mean is higher. ``state``: better than each of
    them, worse than one of them, or neither.
    """

    share: StudyShare
    best: Compared
    others: tuple[Compared, ...]
    state: str


def outcomes(compared: Sequence[Compared], arm: str) -> list[Outcome]:
    """Of the comparisons with random starts those of an arm, by share."""
    own = [each for each in compared if each.arm == arm]
    found = []
    for share in dict.fromkeys(each.share for each in own):
        here = [each for each in own if each.share == share]
        best = min(here, key=lambda each: each.found.mean)  # the smallest gain
        others = tuple(each for each in here if each is not best)
        states = {each.state for each in here}
        state = best.state
        if WORSE in states:
            state = WORSE
        elif best.state == BETTER and states != {BETTER}:
            state = UNTESTED if UNTESTED in states else UNSEEN
        found.append(Outcome(share, best, others, state))
    return found


def leading(study: Study) -> str | None:
    """The pretrained arm with the highest mean where the most labels were measured."""
    found = (_highest(study, PRETRAINED, share) for share in reversed(study.shares))
    return next(filter(None, found), None)


def better_random(study: Study, share: StudyShare) -> str | None:
    """The random start with the higher mean at a share."""
    return _highest(study, RANDOM, share)


def _highest(study: Study, kind: str, share: StudyShare) -> str | None:
    means = {
        arm.name: statistics.fmean(map(statistics.fmean, units))
        for arm in study.of(kind)
        if (units := study.units(arm.name, share))
    }
    return max(means, key=lambda name: means[name]) if means else None


@dataclass(frozen=True)
class Slope:
    """What an arm gained from one share of the labels to the next, for each doubling of them.

    ``mean`` and its 95 % t ``interval`` (None for one network) over the networks that were
    measured at both shares.
    """

    arm: str
    low: StudyShare
    high: StudyShare
    mean: float
    interval: tuple[float, float] | None
    n: int


def slope(study: Study, arm: StudyArm) -> Slope | None:
    """Over the two largest shares at which the arm was measured; None with fewer."""
    shares = study.measured(arm.name)[-2:]
    if len(shares) < 2 or shares[0].images == shares[1].images:
        return None
    low, high = (study.networks(arm.name, share) for share in shares)
    doublings = math.log2(shares[1].images / shares[0].images)
    means = [statistics.fmean(high[key]) - statistics.fmean(low[key]) for key in high if key in low]
    if not means:
        return None
    gains = [mean / doublings for mean in means]
    mean, deviation = mean_and_deviation(gains)
    low_share, high_share = shares
    interval = t_interval(mean, deviation, len(gains))
    return Slope(arm.name, low_share, high_share, mean, interval, len(gains))


@dataclass(frozen=True)
class Sight:
    """What so many runs can show against a random start, and what more of them could.

    ``now``: the least difference that is seen with a chance of 80 %; ``more``: by how many further
    pretrainings, with as many further random networks, the same then. ``needed``: how many further
    ones would see a difference as large as the measured one; None for more than MOST. All at the
    comparison's own level, with both sides' own deviations, if these are what was measured.
    """

    now: float
    more: tuple[tuple[int, float], ...]
    needed: int | None


def sight(compared: Compared) -> Sight | None:
    """None where a side has no spread to reckon with."""
    found = compared.found
    if found.interval is None or not found.pairs and min(len(found.a), len(found.b)) < 2:
        return None
    samples = (found.a, found.b)
    if found.pairs:  # one sample: of differences, whose other side is 0
        gains = [y - x for x, y in zip(found.a, found.b, strict=True)]
        samples = ((0.0,) * len(gains), tuple(gains))
    first, second = (mean_and_deviation(values)[1] for values in samples)

    def least(further: int) -> float:
        n = (len(samples[0]) + further, len(samples[1]) + further)
        return smallest_by_welch(n, (first, second), level=compared.level)

    needed = next((n for n in range(1, MOST + 1) if least(n) <= abs(found.mean)), None)
    return Sight(least(0), tuple((each, least(each)) for each in FURTHER), needed)


@dataclass(frozen=True)
class OfClass:
    """What a class gained; ``p`` corrected by Holm for all classes, None without a spread."""

    name: str
    random: float
    pretrained: float
    found: Difference
    p: float | None


def by_class(study: Study, arm: str, control: str, share: StudyShare) -> list[OfClass]:
    """Of each class that both have values of, pretrained less random, the largest gain first."""
    main = study.protocols[0].metric
    names: dict[str, str] = {}  # the metric by class
    for record in study.trials(arm, share):
        for metric in record.metrics:
            kind = class_of(metric)
            if kind and _same_kind(kind[0], main):
                names.setdefault(kind[1], metric)
    rows = []
    for name, metric in names.items():
        if each := between(study, arm, control, share, metric=metric):
            rows.append((name, each))
    values = corrected([found.p_shown for _, found in rows])
    found = [
        OfClass(name, mean_of(each.a), mean_of(each.b), each, p)
        for (name, each), p in zip(rows, values, strict=True)
    ]
    return sorted(found, key=lambda each: -each.found.mean)


def _same_kind(kind: str, main: str) -> bool:
    """Whether values of single classes are those whose mean the metric is (IoU of mIoU)."""
    return main.replace("/mIoU", "/IoU") == kind
