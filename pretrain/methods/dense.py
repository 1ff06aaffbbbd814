"""MoCo with a dense branch, whatever the correspondence."""

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core import distributed

from ..correspondence import Pair
from ..correspondence.expression import parse
from ..losses import info_nce, set_info_nce
from ..views import View
from .base import LEVEL, feature_std
from .heads import DenseProjector, Queue, unit
from .moco import MoCo
from .momentum import momentum_copy
from .signs import image_signs, position_signs

MATCHING_STREAM = 0x3A7C  # of random pairs


class ByExpression:
    """The correspondence of a dense method: the expression ``DENSE.CORRESPONDENCE``."""

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        parse(cfg.DENSE.CORRESPONDENCE)

    def prepare(self, cfg: CfgNode) -> None:
        """What the correspondence needs to be found."""
        self.expression = parse(cfg.DENSE.CORRESPONDENCE)

    def correspond(self, pair: Pair, p_q: Tensor, p_k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The correspondence c of one direction, and statistics of it.

        ``p_q`` and ``p_k`` are the dense projections ``[B, D, h, w]``. Called without gradient.
        """
        c = self.expression(pair)
        return c, pair_statistics(c)


class DenseMoCo(ByExpression, MoCo):
    """MoCo, and the same for positions, with the positives that a correspondence gives.

        z_q, z_k    backbone maps of query and key          [B, C, h, w]
        p_q, p_k    dense projections, normalised           [B, D, N]
        c           positives of every query position       [B, N, N]
        L           (1 − λ) L_image + λ L_dense

    L_dense is SetSim's loss (eq. 8, mean over an image's queries). Subclasses take another c or
    another loss: ``correspond`` and :meth:`dense_loss`. The key of the dense queue is the mean of
    an image's dense projections.
    """

    dense = True

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg)
        self.dense_projector = DenseProjector(
            self.backbone.channels[LEVEL], cfg.DENSE.HIDDEN, cfg.DENSE.DIM
        )
        self.momentum_dense_projector = momentum_copy(self.dense_projector)
        self.dense_queue = Queue(cfg.MOCO.QUEUE, cfg.DENSE.DIM)
        self.prepare(cfg)

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        pair = (self.momentum_dense_projector, self.dense_projector)
        return [*super().momentum_pairs(), pair]

    def queues(self) -> list[Queue]:
        return [self.queue, self.dense_queue]

    def momentum_outputs(self, levels: dict[str, Tensor]) -> list[Tensor]:
        z = levels[LEVEL]
        return [self.momentum_projector(z), self.momentum_dense_projector(z), z]

    def direction(
        self, query_view: View, key_view: View, step: int, number: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        z_q = self.backbone(query_view.image)[LEVEL]  # [B, C, h, w]
        q = unit(self.projector(z_q))  # [B, D]
        p_q = unit(self.dense_projector(z_q))  # [B, D, h, w]
        k, p_k, z_k = self.encode_keys(key_view.image, step, number)
        k = unit(k)
        pooled = unit(p_k.mean((2, 3)))  # the dense queue's key, [B, D]
        p_k = unit(p_k)

        generator = matching_generator(self.cfg.SEED, step, number)
        pair = Pair(z_q.detach(), z_k, query_view, key_view, generator)
        with torch.no_grad():
            c, stats = self.correspond(pair, p_q.detach(), p_k)
        image = info_nce(q, k, self.queue.keys, self.options.TEMPERATURE)
        dense = self.dense_loss(p_q.flatten(2), p_k.flatten(2), c)
        losses = weighted(self.cfg, step, image, dense)
        signs = image_signs(q, k) | position_signs(p_q.flatten(2), p_k.flatten(2), c)
        return losses | {"stat/feature_std": feature_std(q)} | stats | signs, [k, pooled]

    def dense_loss(self, p_q: Tensor, p_k: Tensor, c: Tensor) -> Tensor:
        """L_dense of the projections ``[B, D, N]`` with the correspondence c."""
        return set_info_nce(
            p_q, p_k, c, self.dense_queue.keys, self.cfg.DENSE.TEMPERATURE, reduction="mean"
        )


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


def matching_generator(seed: int, step: int, direction: int) -> torch.Generator:
    """The generator of random pairs: a function of seed, step, process and direction."""
    key = [MATCHING_STREAM, seed, step, distributed.rank(), direction]
    state = int(np.random.default_rng(key).integers(2**63))
    return torch.Generator().manual_seed(state)
