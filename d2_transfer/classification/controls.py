"""A random network whose batch norm has the statistics of the data: the second random control.

A random start has means 0 and variances 1, which are those of no data: its features keep the scale
and the offsets of the input. A training replaces them even where it learns nothing, and that alone
moves frozen measures by several points. So a claim needs both controls.
"""

from collections.abc import Callable

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import nn
from torch.utils.data import Dataset

from densessl import probes
from densessl.core.distributed import from_first, rank

from ..weights import RANDOM_BN
from .loading import batches_of
from .networks import FeatureNetwork

IMAGES, BATCH = 1024, 32  # at most, drawn by the seed; of a forward pass
STREAM = 0xB43A  # keeps this generator apart from others of the same seed


def start_of(cfg: CfgNode, sha256: str, fingerprint: Callable[[], str]) -> str:
    """What tells the weights of two trials apart: the file's hash, or how a start was drawn.

    ``fingerprint``: of the training images.
    """
    if cfg.MODEL.WEIGHTS == RANDOM_BN:
        return f"{RANDOM_BN}, seed {cfg.SEED}, {fingerprint()}"
    return sha256 or f"random, seed {cfg.SEED}"


@torch.no_grad()
def settle(
    backbone: FeatureNetwork,
    dataset: Dataset,
    images: int,
    cfg: CfgNode,
    path: Callable[[int], str],
) -> None:
    """Of a RANDOM_BN start: give every batch norm the mean of its statistics over the images.

    ``dataset``: evaluation's samples, ``[3, H, W]`` first, of so many training ``images``, of which
    at most IMAGES, drawn by the seed, serve; ``path`` names their files. One process computes the
    statistics (:func:`densessl.probes.take_statistics`), and all have them.
    """
    if cfg.MODEL.WEIGHTS != RANDOM_BN:
        return
    if rank() == 0:
        device = backbone.pixel_mean.device
        with batches_of(dataset, _drawn(images, cfg.SEED), cfg, path) as batches:
            probes.take_statistics(backbone, (pixels.to(device) for pixels, _ in batches), backbone)
    for norm in (each for each in backbone.modules() if isinstance(each, nn.BatchNorm2d)):
        for statistics in (norm.running_mean, norm.running_var):
            assert statistics is not None
            from_first(statistics)
    backbone.eval()


def _drawn(images: int, seed: int) -> list[list[int]]:
    """The numbers of the images that serve, a batch a list, all of nearly one size."""
    numbers = np.random.default_rng((STREAM, seed)).permutation(images)[:IMAGES]
    return [part.tolist() for part in np.array_split(numbers, -(-len(numbers) // BATCH))]
