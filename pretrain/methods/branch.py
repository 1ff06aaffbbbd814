"""What dense branches share, whatever the framework."""

from functools import cached_property

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl.core import distributed

from ..correspondence import Pair
from ..correspondence.expression import Expression, parse

MATCHING_STREAM = 0x3A7C  # of random pairs


class Corresponding:
    """Which positions of two views belong together, of any framework.

    By default what the expression ``DENSE.CORRESPONDENCE`` says; a method with another rule has its
    own :meth:`correspond`, and a :meth:`check` of the options that it reads.
    """

    dense = True
    cfg: CfgNode

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise InputError for an expression that is none."""
        parse(cfg.DENSE.CORRESPONDENCE)

    def prepare(self, cfg: CfgNode) -> None:
        """What a correspondence of one's own needs to be found."""

    @cached_property
    def expression(self) -> Expression:
        return parse(self.cfg.DENSE.CORRESPONDENCE)

    def correspond(self, pair: Pair, p_q: Tensor, p_k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The correspondence c of one direction, and statistics of it.

        ``p_q`` and ``p_k`` are the dense projections ``[B, D, h, w]``. Called without gradient.
        """
        c = self.expression(pair)
        return c, pair_statistics(c)


def weighted(cfg: CfgNode, step: int, image: Tensor, dense: Tensor) -> dict[str, Tensor]:
    """The total (1 − λ) image + λ dense, and its terms; λ is 0 in ``DENSE.WARMUP_STEPS``."""
    weight = 0.0 if step < cfg.DENSE.WARMUP_STEPS else cfg.DENSE.WEIGHT
    return {
        "loss": (1 - weight) * image + weight * dense,
        "loss/image": image.detach(),
        "loss/dense": dense.detach(),
    }


def pair_statistics(c: Tensor) -> dict[str, Tensor]:
    """How many positives a correspondence ``[B, Nq, Nk]`` gives."""
    some = c > 0
    rows = some.any(2)
    return {
        "stat/positives_per_query": some.sum() / rows.sum().clamp_min(1),
        "stat/queries": rows.sum() / len(c),
        "stat/empty_images": (~rows.any(1)).float().mean(),
    }


def matching_generator(seed: int, step: int, direction: int, part: int = 0) -> torch.Generator:
    """The generator of random pairs: a function of seed, step, process, direction and part."""
    key = [MATCHING_STREAM, seed, step, distributed.rank(), direction]
    if part:
        key.append(part)
    state = int(np.random.default_rng(key).integers(2**63))
    return torch.Generator().manual_seed(state)
