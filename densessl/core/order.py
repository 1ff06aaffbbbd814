"""The order of samples: a pure function of the seed and the step.

So a run can be entered at any step without replaying the ones before, and what a sample draws
depends on its place in the order alone, whatever the number of processes that load it.
"""

from collections.abc import Iterator

import numpy as np

Draw = tuple[int, int]  # epoch or position in the stream of samples, number of the image


def seed_of(*numbers: int) -> int:
    """A seed of 32 bits that any of the numbers changes altogether."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def epoch_order(stream: int, seed: int, epoch: int, images: int) -> np.ndarray:
    """The permutation of ``range(images)`` that an epoch follows, int64 [images].

    ``stream`` keeps this generator apart from others of the same seed.
    """
    return np.random.default_rng((stream, seed, epoch)).permutation(images)


class BatchOrder:
    """The batches of one process, from step ``first`` up to ``last``.

    The stream of samples is one :func:`epoch_order` after the other. Each step takes the next
    ``batch_size`` of it, of which process ``rank`` of ``world`` takes every ``world``-th, as
    (position in the stream, image). So batches are always full, and the epochs follow one another
    without a pause: loader processes stay alive and busy over the border. With ``drop_last`` the
    images that do not fill a last batch are left out of their epoch, and they come as (epoch,
    image).
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
        *,
        stream: int,
        drop_last: bool = False,
    ):
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.first, self.last, self.rank, self.world = first, last, rank, world
        self.stream, self.drop_last = stream, drop_last

    def __len__(self) -> int:
        return max(self.last - self.first, 0)

    def __iter__(self) -> Iterator[list[Draw]]:
        length = self.images - (self.images % self.batch_size if self.drop_last else 0)
        orders: dict[int, np.ndarray] = {}  # of this epoch, and of the one that a batch begins in
        for step in range(self.first, self.last):
            start, end = step * self.batch_size, (step + 1) * self.batch_size
            batch = []
            for position in range(start + self.rank, end, self.world):
                epoch, place = divmod(position, length)
                if epoch not in orders:
                    orders = {k: order for k, order in orders.items() if k == epoch - 1}
                    orders[epoch] = epoch_order(self.stream, self.seed, epoch, self.images)
                batch.append((epoch if self.drop_last else position, int(orders[epoch][place])))
            yield batch
