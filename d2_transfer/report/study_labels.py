"""How many labels pretraining saves: where its curve reaches what a random start reaches at most.

Between measured numbers of images the metric is interpolated over their logarithm, for each
pretraining by itself; so at every number of images there are as many values as pretrainings, and
Welch's test against the random networks' values says which numbers the data do not rule out. Those
numbers are the interval (an inverted test, as Fieller's is).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..tables.t_test import between
from .study_data import Study, StudyShare

LEVEL = 0.05
POINTS = 400  # at which the interval is looked for
FEWER, WITHIN, NOT_REACHED = "already at the fewest", "within", "not reached"


@dataclass(frozen=True)
class SavedLabels:
    """Where a pretrained arm reaches the random start's mean at ``full``.

    ``state``: whether its mean gets there between the measured numbers of images (``images`` says
    where), is there already at the fewest of them, or never. ``low`` and ``high``: the numbers of
    images that the data do not rule out at the 5 % level lie between them; None where all that was
    measured are ruled out, and without a test (not ``tested``: nothing has a spread).
    ``open_low`` and ``open_high``: that interval ends where the measured numbers end, and so may
    reach further. ``n``: of random networks, of pretrainings.
    """

    arm: str
    control: str
    target: float
    fewest: StudyShare
    full: StudyShare
    state: str
    images: float | None
    low: float | None
    high: float | None
    tested: bool
    open_low: bool
    open_high: bool
    n: tuple[int, int]


def saved(study: Study, arm: str, control: str) -> SavedLabels | None:
    """None where the arm was measured at fewer than two shares up to the control's largest."""
    reached = study.measured(control)
    if not reached:
        return None
    full = reached[-1]
    shares = [s for s in study.measured(arm) if s.images <= full.images]
    if len(shares) < 2 or shares[-1] != full:
        return None
    curves = _curves(study, arm, shares)
    targets = [statistics.fmean(each) for each in study.units(control, full)]
    if not curves:
        return None
    images = [share.images for share in shares]
    target = statistics.fmean(targets)
    state, where = reaches(images, [statistics.fmean(v) for v in zip(*curves, strict=True)], target)
    tested = between(targets, [curve[-1] for curve in curves]).p is not None
    kept = _not_ruled_out(images, curves, targets, where)
    low, high = (kept[0], kept[-1]) if kept else (None, None)
    return SavedLabels(
        arm=arm,
        control=control,
        target=target,
        fewest=shares[0],
        full=full,
        state=state,
        images=where,
        low=low,
        high=high,
        tested=tested,
        open_low=bool(kept) and low == images[0],
        open_high=bool(kept) and high == images[-1],
        n=(len(targets), len(curves)),
    )


def _curves(study: Study, arm: str, shares: Sequence[StudyShare]) -> list[tuple[float, ...]]:
    """The values at each share of each pretraining that was measured at all of them."""
    by_share = [study.networks(arm, share) for share in shares]
    whole = [key for key in by_share[0] if all(key in each for each in by_share)]
    return [tuple(statistics.fmean(each[key]) for each in by_share) for key in whole]


def reaches(
    images: Sequence[int], values: Sequence[float], target: float
) -> tuple[str, float | None]:
    """From where on a curve, linear in log images, stays at or above ``target``."""
    if values[-1] < target:
        return NOT_REACHED, None
    below = [place for place, value in enumerate(values) if value < target]
    if not below:
        return FEWER, float(images[0])
    place = below[-1]
    part = (target - values[place]) / (values[place + 1] - values[place])
    low, high = math.log(images[place]), math.log(images[place + 1])
    return WITHIN, math.exp(low + part * (high - low))


def interpolated(images: Sequence[int], values: Sequence[float], at: float) -> float:
    """The value at ``at`` images, linear in their logarithm between two that were measured."""
    for place in range(len(images) - 1):
        if at <= images[place + 1]:
            break
    low, high = math.log(images[place]), math.log(images[place + 1])
    part = (math.log(at) - low) / (high - low)
    return values[place] + part * (values[place + 1] - values[place])


def _not_ruled_out(
    images: Sequence[int],
    curves: Sequence[Sequence[float]],
    targets: Sequence[float],
    crossing: float | None,
) -> list[float]:
    """The numbers of images at which pretraining may have the random start's mean at full labels,
    rising; ``crossing``, where it has it in the mean, is looked at, too."""
    low, high = math.log(images[0]), math.log(images[-1])
    inner = {math.exp(low + (high - low) * n / POINTS) for n in range(1, POINTS)}
    inner |= {crossing} if crossing is not None else set()
    kept = []
    for at in sorted({float(images[0]), *inner, float(images[-1])}):
        found = between(targets, [interpolated(images, curve, at) for curve in curves])
        if found.p is not None and found.p > LEVEL:
            kept.append(at)
    return kept
