"""Whether a method's pretrainings were still getting better when they ended."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..tables.spread import mean_and_deviation, t_interval
from .collect import Pretraining
from .curves import ONLINE

LOSSES = ("loss", "loss/image")
QUARTERS = (0.5, 0.75, 1.0)  # of the run: the third quarter and the last


@dataclass(frozen=True)
class End:
    """How a curve moved from the third quarter of the pretrainings' steps to the last.

    ``mean``: of the changes of the quarters' means, over ``n`` pretrainings; ``interval``: 95 %, t,
    None for one. ``steps``: of the longest. ``level``: the last quarter's mean.
    """

    key: str
    title: str
    online: bool
    mean: float
    interval: tuple[float, float] | None
    level: float
    steps: int
    n: int

    @property
    def moves(self) -> int:
        """1 rising, −1 falling, 0 not to be told from neither."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return 0
        return 1 if self.mean > 0 else -1


def end(runs: Sequence[Pretraining]) -> End | None:
    """By the first of the online measures, else by the loss, that the runs logged often enough."""
    titles = {each.key: each.title for each in ONLINE} | dict.fromkeys(LOSSES, "loss")
    for key in ("probe/miou", "knn/top1", *LOSSES):
        found = [pair for run in runs if (pair := _quarters(run, key))]
        if not found:
            continue
        changes = [last - before for before, last in found]
        mean, deviation = mean_and_deviation(changes)
        return End(
            key,
            titles[key],
            key not in LOSSES,
            mean,
            t_interval(mean, deviation, len(changes)),
            statistics.fmean(last for _, last in found),
            max(run.step for run in runs),
            len(changes),
        )
    return None


def _quarters(run: Pretraining, key: str) -> tuple[float, float] | None:
    """The means of the third quarter and of the last; None where one has no value."""
    steps, values = run.series(key)
    start, middle, stop = (run.step * share for share in QUARTERS)
    third = [v for step, v in zip(steps, values, strict=True) if start < step <= middle]
    last = [v for step, v in zip(steps, values, strict=True) if middle < step <= stop]
    if not third or not last or not all(map(math.isfinite, (*third, *last))):
        return None
    return statistics.fmean(third), statistics.fmean(last)
