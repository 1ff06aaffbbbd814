"""Collapse, told during a run: embeddings that are one point, contrast that only guesses."""

import copy
import logging
import math
from typing import Any

from scipy.special import bdtr

logger = logging.getLogger("densessl")

SHARE = 0.1  # of the spread of step 1: below it the embeddings have collapsed
SHARE_TOO_FAST = 1 / 3  # the same where the rate is far above the linear rule
WINDOW = 200  # steps over which an accuracy is judged
# A network that learns is at least so many times as often right as a guess, in 1 / B or in 1/2.
TIMES = {"": 1.5, "positions_": 1.07}
LEVEL = 1e-4  # chance of so few hits in a run whose accuracy is TIMES that of a guess
ADVICE = (
    "Lower SOLVER.BASE_LR (it is scaled by SOLVER.BATCH_SIZE / SOLVER.REFERENCE_BATCH), or warm up "
    "(SOLVER.WARMUP_EPOCHS); page 'Methods' of the documentation, What the log shows"
)
WORDS = {"": "the images of a step", "positions_": "the positions of a step"}


class Collapse:
    """Looks at the values of every step, and warns once a kind; process 0's part of the batch.

    ``spread``: ``stat/feature_std`` is below a tenth of that of the first step (to a fifth of it
    a run at the linear rule's rate with a slow momentum encoder falls, too), or below a third where
    the rate is ``too_fast``. No other sign tells the two apart so early: uniformity is near 0 and
    the accuracy at chance in both. ``accuracy`` and
    ``positions_accuracy``: over 200 steps that accuracy is at chance, by a binomial bound on its
    ``images`` a step (positions of one image are not independent). The first ``warmup`` steps say
    nothing about accuracy: the rate has not reached its height.
    """

    def __init__(self, warmup: int, images: int, too_fast: bool = False):
        self.warmup, self.images = warmup, images
        self.share = SHARE_TOO_FAST if too_fast else SHARE
        self.start: float | None = None  # the spread at the first step
        self.windows: dict[str, list[float]] = {}  # of each accuracy: steps, its sum, chance's sum
        self.noticed: dict[str, int] = {}  # the step at which each kind was

    def state_dict(self) -> dict[str, Any]:
        state = {"start": self.start, "windows": self.windows, "noticed": self.noticed}
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Empty for a checkpoint of an older version: its spread has nothing to compare with."""
        self.start = state.get("start")
        self.windows = copy.deepcopy(state.get("windows", {}))
        self.noticed = dict(state.get("noticed", {}))

    def facts(self) -> dict[str, int]:
        """For the lines of the log: the step at which each kind was noticed."""
        return {f"collapse/{kind}": step for kind, step in self.noticed.items()}

    def count(self, step: int, values: dict[str, float]) -> None:
        """Take note of the values of a step, ``step`` steps being done."""
        spread = values.get("stat/feature_std", math.nan)
        if step == 1:
            self.start = spread if spread > 0 else None
        if self.start and spread < self.share * self.start:
            limit = "a tenth" if self.share == SHARE else "a third, above the linear rule's rate"
            self._notice(
                "spread",
                step,
                f"the embeddings become one point: their spread (stat/feature_std) fell from "
                f"{self.start:.3g} at step 1 to {spread:.3g}, below {limit}",
            )
        for what in WORDS if step > self.warmup else ():
            self._count_hits(what, step, values)

    def _count_hits(self, what: str, step: int, values: dict[str, float]) -> None:
        name = f"{what}accuracy"
        accuracy = values.get(f"stat/{name}", math.nan)
        chance = values.get(f"stat/{what}chance", math.nan)
        if not math.isfinite(accuracy + chance):
            return
        window = self.windows.setdefault(name, [0, 0.0, 0.0])
        for place, value in enumerate((1, accuracy, chance)):
            window[place] += value
        if window[0] < WINDOW:
            return
        accuracy, chance = window[1] / WINDOW, window[2] / WINDOW
        del self.windows[name]
        if at_chance(accuracy, chance, TIMES[what], WINDOW * self.images):
            self._notice(
                name,
                step,
                f"over the last {WINDOW} steps the contrast accuracy (stat/{name}) is at chance: "
                f"{100 * accuracy:.2f} %, and a guess is right in {100 * chance:.2f} %. Nothing "
                f"tells {WORDS[what]} apart",
            )

    def _notice(self, kind: str, step: int, what: str) -> None:
        if kind not in self.noticed:
            self.noticed[kind] = step
            logger.warning("step %d: %s. %s", step, what, ADVICE)


def at_chance(accuracy: float, chance: float, times: float, trials: int) -> bool:
    """Whether an accuracy over so many trials is no better than guessing.

    It is where so few hits would come with probability below ``LEVEL`` from an accuracy ``times``
    that of guessing (the lower tail of the binomial distribution). Not to be told, and so False,
    where that would be always right.
    """
    least = times * chance
    if not 0 < least < 1:
        return False
    hits = math.floor(accuracy * trials + 1e-6)
    if hits >= least * trials:
        return False
    return bdtr(hits, trials, least) < LEVEL
