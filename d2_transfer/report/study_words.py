"""A study in words: the answer, how sure it is, and what follows from what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from densessl.core.units import many

from ..compare.words import points
from ..tables.t_test import mean_of, p_value
from .study_data import StudyArm, StudyShare, listed
from .study_labels import FEWER, NOT_REACHED, SavedLabels
from .study_numbers import BETTER, MOST, UNSEEN, UNTESTED, WORSE, Compared, Outcome, Sight, Slope
from .study_steps import End

YES, NO, OPEN = "good", "bad", "look"  # styles of the page
METRICS = {
    "mIoU": "mean intersection over union: how well predicted and true areas overlap, averaged "
    "over the classes",
    "AP": "average precision of the objects found, averaged over classes and overlaps",
    "top1": "share of the images whose class is right",
}
STARTS = {
    "random": "a network as it is drawn, without pretraining",
    "random_bn": "the same with the data's batch-norm statistics",
}
PER_CENT = "\u00a0%"
NOT_KNOWN = "Cannot be said with this many runs"


@dataclass(frozen=True)
class Answer:
    """``style`` is the colour, ``short`` the answer, ``long`` what was found."""

    style: str
    short: str
    long: str


@dataclass(frozen=True)
class Statement:
    """A finding: the number in front, and the sentences behind it."""

    number: str
    text: str


def at(shares: Sequence[StudyShare]) -> str:
    """``with 1 % and 10 % of the labels``."""
    return f"with {listed([share.text for share in shares])} of the labels"


def name(metric: str) -> str:
    """``mIoU`` of ``sem_seg/mIoU``; that it is the best of several learning rates is left out."""
    return metric.rpartition("/")[2].removesuffix("_best_lr")


def answer(arm: str | None, outcomes: Sequence[Outcome], given: Sequence[Compared]) -> Answer:
    """Whether pretraining with ``arm`` is worth it; ``given``: against given weights."""
    if arm is None:
        return Answer(OPEN, "Cannot be said yet", "No pretraining has been measured.")
    if not outcomes:
        missing = f"No share of the labels has results of both {arm} and a random start."
        return Answer(OPEN, "Cannot be said yet", missing)
    found = of_random(arm, outcomes)
    own = [each for each in given if each.arm == arm]
    behind = {each.other for each in own if each.state == BETTER}
    ahead: dict[str, list[StudyShare]] = {}  # the given weights that are better, and where
    for each in own:
        if each.state == WORSE and each.other not in behind:
            ahead.setdefault(each.other, []).append(each.share)
    if not ahead:
        return found
    better = listed([f"{other} ({at(shares)})" for other, shares in ahead.items()])
    long = f"{found.long} Given weights are better than {arm}: {better}."
    if found.style != YES:
        return Answer(found.style, found.short, long)
    return Answer(OPEN, f"Not if you have the weights of {listed([*ahead])}", long)


def of_random(arm: str, outcomes: Sequence[Outcome]) -> Answer:
    """Whether ``arm`` is better than starting at random, by share."""
    shares = {
        state: [each.share for each in outcomes if each.state == state]
        for state in (BETTER, WORSE, UNSEEN, UNTESTED)
    }
    better, worse = shares[BETTER], shares[WORSE]
    unseen = "the difference may be chance"
    untested = "nothing could be tested, as that takes several runs of each"
    rest = [
        f"{at(own)} {what}"
        for own, what in ((shares[UNSEEN], unseen), (shares[UNTESTED], untested))
        if own
    ]
    behind = f"; {'; '.join(rest)}" if rest else ""
    if better and worse:
        long = f"{arm} beats starting at random {at(better)}, and is worse {at(worse)}{behind}."
        return Answer(OPEN, "It depends on the number of labels", long)
    if better:
        short = f"Yes, {at(better)}" if rest else "Yes"
        return Answer(YES, short, f"{arm} beats starting at random {at(better)}{behind}.")
    if worse:
        return Answer(NO, "No", f"{arm} is worse than starting at random {at(worse)}{behind}.")
    return Answer(OPEN, NOT_KNOWN, f"{arm} against starting at random: {'; '.join(rest)}.")


def by_how_much(outcome: Outcome, metric: str) -> Statement:
    """The difference from the better random start at a share, and how sure it is."""
    statement = difference(outcome.best, metric)
    if outcome.others and outcome.state != outcome.best.state:
        others = [f"{each.other} {each.state}" for each in outcome.others]
        statement = Statement(statement.number, f"{statement.text} Against {listed(others)}.")
    return statement


def difference(each: Compared, metric: str) -> Statement:
    """Of one comparison: the difference, both means, interval, p, of how many runs."""
    found, share = each.found, each.share
    text = (
        f"with {share.text} of the labels ({many(share.images, 'image')}): {each.arm} "
        f"{points(mean_of(found.b))}, {each.other} {points(mean_of(found.a))}. {_chance(each)}"
    )
    return Statement(f"{points(found.mean, '+')} {name(metric)}", text)


def _chance(each: Compared) -> str:
    found = each.found
    if found.interval is None or each.p is None:
        why = "The values do not differ" if found.without_spread else "One run has no spread"
        return f"{why}: whether that is chance cannot be said ({runs(each)})."
    low, high = found.interval
    text = f"95\u00a0% interval {points(low)} to {points(high)}, {p_value(each.p)}; {runs(each)}."
    if each.state == UNSEEN and high > 0:
        text += f" That may be chance; a gain of more than {points(high)} is unlikely."
    elif each.state == UNSEEN:
        text += " That may be chance."
    return text


def runs(each: Compared) -> str:
    """Of how many pretrainings and trials: ``3 pretrainings against 5 random networks``."""
    found = each.found
    if found.pairs:
        other = "random networks" if each.random else f"as many trials of {each.other}"
        count = "" if not each.random else f"{found.pairs} "
        pretrained = many(found.pairs, "pretraining")
        return f"{pretrained} against {count}{other}, in pairs with the same labels"
    assert found.fine_tunings  # what is not paired compares networks
    theirs, ours = found.fine_tunings
    other = "random network" if each.random else "given network"
    return f"{_networks(ours, 'pretraining')} against {_networks(theirs, other)}"


def _networks(trials: Sequence[int], what: str) -> str:
    text = many(len(trials), what)
    if max(trials) == 1:
        return text
    own = str(trials[0]) if len(set(trials)) == 1 else " + ".join(map(str, trials))
    return f"{text} of {own} trials{' each' * (len(set(trials)) == 1 < len(trials))}"


def labels_saved(found: SavedLabels, metric: str) -> Statement:
    """How many of the labelled images the pretrained network needs, and how sure that is."""
    full = found.full
    aim = (
        f"{found.control} reaches {points(found.target)} {name(metric)} with "
        f"{many(full.images, 'labelled image')}"
    )
    if found.state == NOT_REACHED:
        text = f"{aim}; {found.arm} does not reach that."
        return Statement("None within what was measured:", f"{text} {_how_sure(found)}")
    if found.state == FEWER:
        text = (
            f"{aim}; {found.arm} is above that already with {found.fewest.images}, the fewest that "
            "were measured."
        )
        return Statement(
            f"{_saved(found.fewest.images, full)} or more:", f"{text} {_how_sure(found)}"
        )
    assert found.images is not None
    text = (
        f"{aim}; {found.arm} with about {found.images:.0f} (interpolated between what was "
        "measured, over the logarithm of the number of images)."
    )
    shown = found.tested and not found.open_high
    first = f"About {_saved(found.images, full)}:" if shown else "No saving is shown:"
    return Statement(first, f"{text} {_how_sure(found)}")


def _saved(images: float, full: StudyShare) -> str:
    return f"{100 * (1 - images / full.images):.0f}\u00a0% of the labels"


def _how_sure(found: SavedLabels) -> str:
    if not found.tested:
        return "How sure that is cannot be said: too few runs."
    if found.low is None or found.high is None:
        side = "above" if found.state == FEWER else "below"
        more = f"{side} by more than chance explains (5\u00a0% level, not corrected)"
        return f"At all of them it is {more}."
    if found.state == NOT_REACHED:
        return (
            f"That it does with {found.low:.0f} images or more is not ruled out (5\u00a0% level)."
        )
    low = f"{found.low:.0f}{' or fewer' if found.open_low else ''}"
    high = f"{found.high:.0f}{' or more' if found.open_high else ''}"
    text = f"95\u00a0% interval of that number: {low} to {high} images"
    if found.open_low and found.open_high:
        return f"{text}: nothing that was measured is ruled out."
    if found.open_high:
        return f"{text}: that nothing is saved is not ruled out."
    return f"{text}, so at least {_saved(found.high, found.full)} are saved."


def more_labels(slopes: Sequence[Slope], metric: str) -> Statement:
    """What doubling the labels gave between the two largest shares; all slopes are of those."""
    low, high = slopes[0].low, slopes[0].high
    text = (
        f"each doubling from {low.images} to {high.images} images gave, in points of "
        f"{name(metric)}, {listed([_slope(slope) for slope in slopes])}. Beyond {high.images} "
        "images nothing was measured."
    )
    return Statement("More labels:", text)


def _slope(slope: Slope) -> str:
    text = f"{slope.arm} {points(slope.mean, '+')}"
    if slope.interval is None:
        return f"{text} (one network)"
    low, high = slope.interval
    return f"{text} (95\u00a0% interval {points(low)} to {points(high)})"


def more_steps(arm: StudyArm, found: End) -> Statement:
    """Whether the pretrainings were still moving when they ended."""
    change = f"{points(found.mean, '+')} from the third quarter of the steps to the last"
    level = f"{points(found.level)}{PER_CENT * found.online}"
    if found.interval is None:
        change_of = f"changed by {change}, to {level}; of one pretraining, so it may be chance"
    else:
        better = 1 if found.online else -1
        words = {better: "was still getting better", 0: "was flat, as far as can be told"}
        low, high = found.interval
        change_of = (
            f"{words.get(found.moves, 'was getting worse')} ({change}, 95\u00a0% interval "
            f"{points(low)} to {points(high)}, to {level}; {many(found.n, 'pretraining')})"
        )
    lower = "" if found.online else " A lower loss need not be a better network."
    ends = f"at the end of {arm.name}'s {found.steps:,} steps the {found.title} {change_of}"
    hope = (
        "Curves flatten with the learning rate, which falls towards the end: only a longer run "
        "shows what more steps give."
    )
    return Statement("More steps:", f"{ends}.{lower}{_cut(arm)} {hope}")


def _cut(arm: StudyArm) -> str:
    steps, full = arm.facts.get("steps"), arm.facts.get("steps_full")
    if not (isinstance(steps, int) and isinstance(full, int) and steps < full):
        return ""
    return f" {full:,} would suit so many images, and did not fit."


def more_runs(seen: Sequence[tuple[Compared, Sight]], metric: str) -> Statement:
    """What so many pretrainings can see at each share, and how many would see what was measured."""
    more = listed([str(count) for count, _ in seen[0][1].more])
    own = [
        f"{', '.join(map(points, (sight.now, *(least for _, least in sight.more))))} with "
        f"{each.share.text} of the labels"
        for each, sight in seen
    ]
    text = (
        f"the least difference that is seen with a chance of 80{PER_CENT}, in points of "
        f"{name(metric)}, now and with {more} more pretrainings and as many random networks: "
        f"{'; '.join(own)}. That takes the deviations as they were measured, which few runs tell "
        "but roughly."
    )
    needed = [
        f"{points(each.found.mean, '+')} with {each.share.text} takes {_needed(sight)}"
        for each, sight in seen
        if each.state == UNSEEN
    ]
    if needed:
        text += f" To see a difference as large as the measured one: {listed(needed)}."
    return Statement("More pretrainings:", text)


def _needed(sight: Sight) -> str:
    return f"{sight.needed} more" if sight.needed else f"over {MOST} more"
