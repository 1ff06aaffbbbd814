"""SetSim on MoCo and on SimSiam (Wang et al. 2022): set × set ∪ geometry ∪ nearest neighbour."""

from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl.core.errors import InputError

from ..correspondence import (
    Pair,
    attention,
    geometric,
    one_hot,
    random_pairs,
    salient,
    set_to_set,
    sorted_pairs,
)
from ..correspondence.pixels import assignment
from ..losses import set_info_nce
from .branch import pair_statistics
from .moco import DenseMoCo
from .simsiam import DenseSimSiam

OPTIONS = {
    "SETSIM.SET": True,  # Set: salient set × salient set (eq. 5)
    # pairs of the sets: set2set, random, sort, hungarian (Table 2)
    "SETSIM.STRATEGY": ("set2set", ("set2set", "random", "sort", "hungarian")),
    # attention: abs_sum (eq. 3), square_mean (released code)
    "SETSIM.STATISTIC": ("abs_sum", ("abs_sum", "square_mean")),
    "SETSIM.THRESHOLD": (0.7, "> 0, <= 1"),  # δ: a position is salient from this attention on
    # drop set pairs of lower cosine; 0: off (released script: 0.2)
    "SETSIM.MIN_COSINE": (0.0, ">= -1, <= 1"),
    "SETSIM.GEOMETRY_THRESHOLD": (0.5, ">= 0"),  # Geo: distance below which positions match; 0: off
    # pixels: exact crop edges; pixpro: the released frame
    "SETSIM.GEOMETRY_FRAME": ("pixels", ("pixels", "pixpro")),
    "SETSIM.NEAREST": True,  # NN: add the nearest neighbour (eq. 6–7)
    # for which queries: salient (eq. 7), valid (has a positive)
    "SETSIM.NEAREST_ROWS": ("salient", ("valid", "salient")),
    # over the queries of an image: mean (released code), sum (eq. 8)
    "SETSIM.REDUCTION": ("mean", ("mean", "sum")),
}


class SetSim(DenseMoCo):
    """MoCo with a dense branch whose positives are sets: (1 − λ) L_image + λ L_set (eq. 8, 9)."""

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        options = cfg.SETSIM
        alone = options.NEAREST and options.NEAREST_ROWS == "salient"
        if not (options.SET or options.GEOMETRY_THRESHOLD or alone):
            raise InputError(
                "SETSIM.SET is False and SETSIM.GEOMETRY_THRESHOLD is 0, so no position has a "
                "positive; switch one on, or NEAREST with NEAREST_ROWS salient"
            )

    @classmethod
    def facts(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"setsim_threshold": cfg.SETSIM.THRESHOLD}

    def correspond(self, pair: Pair, p_q: Tensor, p_k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return set_positives(self.cfg.SETSIM, pair)

    def dense_loss(self, p_q: Tensor, p_k: Tensor, c: Tensor) -> Tensor:
        keys, options = self.dense_queue.keys, self.cfg
        return set_info_nce(
            p_q, p_k, c, keys, options.DENSE.TEMPERATURE, reduction=options.SETSIM.REDUCTION
        )


class SetSimSiam(DenseSimSiam):
    """SimSiam with a dense branch whose positives are sets; the loss is a cosine (section 4.1)."""

    check, correspond = SetSim.check, SetSim.correspond


def set_positives(options: CfgNode, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
    """SetSim's positives, for any framework, and what they are made of; ``options``: SETSIM.

    Ω           salient positions of a map (eq. 3–5)    [B, N]
    c           positives of every query position       bool [B, N, N]
    """
    salient_q = salient(pair.query, options.THRESHOLD, options.STATISTIC)  # Ω_q
    salient_k = salient(pair.key, options.THRESHOLD, options.STATISTIC)
    if options.SET:
        sets = pairs_of_sets(options, pair, salient_q, salient_k)
    else:
        sets = set_to_set(torch.zeros_like(salient_q), salient_k)
    if options.SET and options.MIN_COSINE:
        sets = sets & (pair.cosine >= options.MIN_COSINE)
    c = sets
    if options.GEOMETRY_THRESHOLD:
        threshold, frame = options.GEOMETRY_THRESHOLD, options.GEOMETRY_FRAME
        c = c | geometric(pair.query_view, pair.key_view, pair.grid, threshold, frame)
    before = c
    if options.NEAREST:
        rows = c.any(2) if options.NEAREST_ROWS == "valid" else salient_q
        neighbour = one_hot(pair.nearest, c.shape[2])
        c = c | (neighbour & rows[:, :, None])
    images = len(c)
    return c, {
        "stat/set_size": (salient_q.sum() + salient_k.sum()) / (2 * images),
        **pair_statistics(c),
        "stat/pairs_set": sets.sum() / images,
        "stat/pairs_geometry": (before & ~sets).sum() / images,  # added by Geo
        "stat/pairs_nearest": (c & ~before).sum() / images,  # added by NN
    }


def pairs_of_sets(options: CfgNode, pair: Pair, salient_q: Tensor, salient_k: Tensor) -> Tensor:
    """Which salient positions of the two views are paired (Table 2): bool ``[B, N, N]``."""
    if options.STRATEGY == "set2set":
        return set_to_set(salient_q, salient_k)
    if options.STRATEGY == "random":
        return random_pairs(salient_q, salient_k, pair.generator)
    if options.STRATEGY == "sort":
        a_q, a_k = (attention(z, options.STATISTIC) for z in (pair.query, pair.key))
        return sorted_pairs(a_q, a_k, salient_q, salient_k)
    return assignment(pair.cosine, salient_q, salient_k)
