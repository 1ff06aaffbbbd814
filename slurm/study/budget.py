"""What fits into the time: how many steps, and what is left out for them. Pure, but for the
measured seconds that it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from densessl.core.errors import InputError
from densessl.core.progress import duration

from .draws import Share
from .recipe import Recipe

ROOM = 0.92  # of the budget that is planned for: trials on a busy machine differ
LEAST_STEPS = 200  # of a pretraining: of fewer nothing was ever seen (docs/measurements.md)
ENOUGH_STEPS = 1000  # of each, for a second method that was not asked for
MEASURING = 1 / 3  # of the budget, at most


@dataclass(frozen=True)
class Costs:
    """Seconds, measured here: of a process before it works, of a trial from so many labelled
    images at an effort, of a step of a pretraining, of what the trials of a network share."""

    start: float
    trial: Callable[[int, int], float]  # effort, images
    step: Callable[[Recipe], float]
    network: Callable[[int], float] = lambda effort: 0.0

    def draw(self, effort: int, shares: Sequence[Share]) -> float:
        """Of the trials of a network."""
        return self.network(effort) + sum(self.trial(effort, share.images) for share in shares)


@dataclass(frozen=True)
class Offer:
    """What a study would do. ``asked``: the methods were named at the call."""

    recipes: tuple[Recipe, ...]
    shares: tuple[Share, ...]
    seeds: int
    others: int  # arms that need no pretraining
    asked: bool
    effort: int = 0  # how little a protocol takes, of so many ``efforts``: 0 as its authors
    efforts: int = 1
    steps: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def cut(self, sentence: str, **changes) -> "Offer":
        return replace(self, notes=(*self.notes, sentence), **changes)


@dataclass
class Fitting:
    """Fits an offer into ``budget`` seconds, of which ``spent`` are gone."""

    costs: Costs
    budget: float
    spent: float = 0.0
    names: Sequence[str] = field(default_factory=tuple)

    def fit(self, offer: Offer) -> Offer:
        """The offer with its steps, less what the budget does not hold; InputError where it holds
        nothing."""
        while offer.effort + 1 < offer.efforts and self.measuring(offer) > MEASURING * self.budget:
            offer = replace(offer, effort=offer.effort + 1)
        while True:
            steps = self._steps(offer)
            if not offer.recipes or self._enough(offer, steps):
                break
            smaller = self._smaller(offer, min(steps))
            if smaller is None:
                break
            offer = smaller
        if self._left(offer) <= 0 or (steps and min(steps) < 1):
            needed = self.spent + self.measuring(offer) + self._starts(offer)
            raise InputError(
                f"--budget {duration(self.budget)} is not enough: without any pretraining the "
                f"least that can be measured takes {duration(needed / ROOM)}; allowed: about "
                f"{duration(2 * needed / ROOM)} or more"
            )
        full = [recipe.full for recipe in offer.recipes]
        for recipe, count, most in zip(offer.recipes, steps, full, strict=True):
            if count < most:
                offer = offer.cut(
                    f"{recipe.name}: {count:,} steps, where {most:,} would suit so many images"
                )
        return replace(offer, steps=tuple(map(min, steps, full)))

    def measuring(self, offer: Offer) -> float:
        """The seconds of all trials."""
        arms = offer.others + len(offer.recipes)
        each = self.costs.draw(offer.effort, offer.shares)
        return arms * (self.costs.start + offer.seeds * each)

    def _starts(self, offer: Offer) -> float:
        """Of the processes of pretrainings, and of the one that makes the page."""
        return (len(offer.recipes) * offer.seeds + 1) * self.costs.start

    def _left(self, offer: Offer) -> float:
        """For steps."""
        used = self.spent + self.measuring(offer) + self._starts(offer)
        return ROOM * self.budget - used

    def _steps(self, offer: Offer) -> list[int]:
        """Of a pretraining of each method, which have the same time."""
        runs = len(offer.recipes) * offer.seeds
        each = max(self._left(offer), 0) / max(runs, 1)
        return [int(each / self.costs.step(recipe)) for recipe in offer.recipes]

    def _enough(self, offer: Offer, steps: Sequence[int]) -> bool:
        least = LEAST_STEPS if offer.asked or len(offer.recipes) == 1 else ENOUGH_STEPS
        wanted = [min(least, recipe.full) for recipe in offer.recipes]
        return all(has >= needs for has, needs in zip(steps, wanted, strict=True))

    def _smaller(self, offer: Offer, steps: int) -> Offer | None:
        """The offer with one thing less; None where nothing is left to leave out.

        The seeds stay: the intervals of two runs are several times as wide as those of three.
        """
        reason = f"with it each pretraining would have {steps:,} steps"
        if len(offer.recipes) > 1:
            left = offer.recipes[-1].name
            recipes = offer.recipes[:-1]
            return offer.cut(f"the method {left} is left out: {reason}", recipes=recipes)
        recipe = offer.recipes[0]
        if smaller := recipe.smaller:
            side = smaller.view
            return offer.cut(
                f"{recipe.name}: views of {side} px; with larger ones it has {steps:,} steps",
                recipes=(smaller,),
            )
        if len(offer.shares) > 2:
            middle = offer.shares[len(offer.shares) // 2]
            shares = tuple(share for share in offer.shares if share is not middle)
            return offer.cut(f"{middle.name} % of the labels is left out: {reason}", shares=shares)
        return None
