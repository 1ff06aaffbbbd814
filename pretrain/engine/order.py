"""The order of pretraining's samples, without the images that do not fill an epoch's last batch
(drop_last, as in the official runs)."""

import functools

import numpy as np

from densessl.core import order

# Keep these generators apart from the others that start from the same seed.
STREAM, STEP_STREAM = 0x0DE7, 0x57E9
BatchOrder = functools.partial(order.BatchOrder, stream=STREAM, drop_last=True)


def global_batch(seed: int, step: int, images: int, batch_size: int) -> list[int]:
    """The images of one step over all processes."""
    (batch,) = BatchOrder(images, batch_size, seed, step, step + 1)
    return [index for _, index in batch]


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what a step draws from torch's own generator, as dropped paths do."""
    return int(np.random.default_rng((STEP_STREAM, seed, step, rank)).integers(2**63))
