"""The order of samples: a pure function of the seed and the epoch.

The global batch of a step is the next ``batch_size`` images of its epoch's order, so a run can be
entered at any step without replaying the ones before.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# Keep these generators apart from the others that start from the same seed.
STREAM, STEP_STREAM = 0x0DE7, 0x57E9


def epoch_order(seed: int, epoch: int, images: int) -> np.ndarray:
    """The permutation of ``range(images)`` that epoch ``epoch`` follows, int64 [images]."""
    return np.random.default_rng((STREAM, seed, epoch)).permutation(images)


def global_batch(seed: int, step: int, images: int, batch_size: int) -> np.ndarray:
    """The images of one step over all processes, int64 [batch_size]."""
    epoch, place = divmod(step, images // batch_size)
    return epoch_order(seed, epoch, images)[place * batch_size : (place + 1) * batch_size]


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what a step draws from torch's own generator, as dropped paths do."""
    return int(np.random.default_rng((STEP_STREAM, seed, step, rank)).integers(2**63))


class BatchOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for one process, from step ``first`` up to ``last``.

    Each global batch holds ``batch_size`` images, of which process ``rank`` of ``world`` takes
    every ``world``-th. The images that do not fill a last batch are left out of that epoch
    (drop_last, as in the official runs). Epochs follow one another without a pause, so loader
    processes stay alive and busy over the border.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        seed: int,
        first: int,
        last: int,
        rank: int = 0,
        world: int = 1,
    ):
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.first, self.last = first, last
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return max(self.last - self.first, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        steps_per_epoch = self.images // self.batch_size
        order, ordered_epoch = np.empty(0, np.int64), -1
        for step in range(self.first, self.last):
            epoch, place = divmod(step, steps_per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = epoch_order(self.seed, epoch, self.images), epoch
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world]]
