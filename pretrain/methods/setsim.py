"""SetSim on MoCo and on SimSiam (Wang et al. 2022): set × set ∪ geometry ∪ nearest neighbour."""

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
from .dense import ByExpression, DenseMoCo, pair_statistics
from .dense_simsiam import DenseSimSiam


class SetCorrespondence(ByExpression):
    """SetSim's positives, for any framework.

    Ω           salient positions of a map (eq. 3–5)    [B, N]
    c           positives of every query position       bool [B, N, N]
    """

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        options = cfg.SETSIM
        alone = options.NEAREST and options.NEAREST_ROWS == "salient"
        if not (options.SET or options.GEOMETRY_THRESHOLD or alone):
            raise InputError(
                "SETSIM.SET is False and SETSIM.GEOMETRY_THRESHOLD is 0, so no position has a "
                "positive; switch one on, or NEAREST with NEAREST_ROWS salient"
            )

    def prepare(self, cfg: CfgNode) -> None:
        self.check(cfg)  # also where a method is built without the engine

    def correspond(self, pair: Pair, p_q: Tensor, p_k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The positives c, and what they are made of."""
        options = self.cfg.SETSIM
        salient_q = salient(pair.query, options.THRESHOLD, options.STATISTIC)  # Ω_q
        salient_k = salient(pair.key, options.THRESHOLD, options.STATISTIC)
        if options.SET:
            sets = self.pairs_of_sets(pair, salient_q, salient_k)
        else:
            sets = set_to_set(torch.zeros_like(salient_q), salient_k)
        if options.SET and options.MIN_COSINE:
            sets = sets & (pair.cosine >= options.MIN_COSINE)
        c = sets
        if options.GEOMETRY_THRESHOLD:
            c = c | geometric(
                *(pair.query_view, pair.key_view, pair.grid),
                *(options.GEOMETRY_THRESHOLD, options.GEOMETRY_FRAME),
            )
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

    def pairs_of_sets(self, pair: Pair, salient_q: Tensor, salient_k: Tensor) -> Tensor:
        """Which salient positions of the two views are paired (Table 2): bool ``[B, N, N]``."""
        options = self.cfg.SETSIM
        if options.STRATEGY == "set2set":
            return set_to_set(salient_q, salient_k)
        if options.STRATEGY == "random":
            return random_pairs(salient_q, salient_k, pair.generator)
        if options.STRATEGY == "sort":
            a_q, a_k = (attention(z, options.STATISTIC) for z in (pair.query, pair.key))
            return sorted_pairs(a_q, a_k, salient_q, salient_k)
        return assignment(pair.cosine, salient_q, salient_k)


class SetSim(SetCorrespondence, DenseMoCo):
    """MoCo with a dense branch whose positives are sets: (1 − λ) L_image + λ L_set (eq. 8, 9)."""

    def dense_loss(self, p_q: Tensor, p_k: Tensor, c: Tensor) -> Tensor:
        return set_info_nce(
            *(p_q, p_k, c, self.dense_queue.keys, self.cfg.DENSE.TEMPERATURE),
            reduction=self.cfg.SETSIM.REDUCTION,
        )


class SetSimSiam(SetCorrespondence, DenseSimSiam):
    """SimSiam with a dense branch whose positives are sets; the loss is a cosine (section 4.1)."""
