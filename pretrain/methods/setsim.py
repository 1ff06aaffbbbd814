"""SetSim on MoCo (Wang et al. 2022): set × set ∪ geometry ∪ nearest neighbour."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from console.errors import InputError
from pretrain.correspondence import (
    cosine,
    geometric,
    nearest,
    one_hot,
    salient,
    set_to_set,
)
from pretrain.losses import info_nce, set_info_nce
from pretrain.views import View

from .base import feature_std
from .heads import DenseProjector, Queue, unit
from .moco import LEVEL, MoCo, momentum_copy


class SetSim(MoCo):
    """MoCo with a dense branch whose positives are sets.

    z_q, z_k    backbone maps of query and key          [B, C, h, w]
    p_q, p_k    dense projections, normalised           [B, D, N]
    Ω           salient positions of a map (eq. 3–5)    [B, N]
    c           positives of every query position       bool [B, N, N]
    L           (1 − λ) L_image + λ L_set               (eq. 8, 9)
    """

    dense = True

    def __init__(self, cfg: CfgNode):
        options, dense = cfg.SETSIM, cfg.DENSE
        if not (options.SET or options.GEOMETRY_THRESHOLD or self.nearest_alone(options)):
            raise InputError(
                "SETSIM.SET is False and SETSIM.GEOMETRY_THRESHOLD is 0, so no position has a "
                "positive; switch one on, or NEAREST with NEAREST_ROWS salient"
            )
        super().__init__(cfg)
        self.dense_projector = DenseProjector(
            self.backbone.channels[LEVEL], dense.HIDDEN, dense.DIM
        )
        self.momentum_dense_projector = momentum_copy(self.dense_projector)
        self.dense_queue = Queue(cfg.MOCO.QUEUE, dense.DIM)

    @staticmethod
    def nearest_alone(options: CfgNode) -> bool:
        """Whether the nearest neighbour needs no other positive beside it."""
        return options.NEAREST and options.NEAREST_ROWS == "salient"

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        pair = (self.momentum_dense_projector, self.dense_projector)
        return [*super().momentum_pairs(), pair]

    def queues(self) -> list[Queue]:
        return [self.queue, self.dense_queue]

    def momentum_outputs(self, z: Tensor) -> list[Tensor]:
        return [self.momentum_projector(z), self.momentum_dense_projector(z), z]

    def direction(
        self, query_view: View, key_view: View, permutation: Tensor | None, step: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        z_q = self.backbone(query_view.image)[LEVEL]  # [B, C, h, w]
        q = unit(self.projector(z_q))  # [B, D]
        p_q = unit(self.dense_projector(z_q).flatten(2))  # [B, D, N]
        k, p_k, z_k = self.encode_keys(key_view.image, permutation)
        k = unit(k)
        pooled = unit(p_k.mean((2, 3)))  # the dense queue's key, [B, D]
        p_k = unit(p_k.flatten(2))

        c, stats = self.correspond(z_q.detach(), z_k, query_view, key_view)
        image = info_nce(q, k, self.queue.keys, self.options.TEMPERATURE)
        dense = set_info_nce(
            *(p_q, p_k, c, self.dense_queue.keys, self.cfg.DENSE.TEMPERATURE),
            reduction=self.cfg.SETSIM.REDUCTION,
        )
        weight = 0.0 if step < self.cfg.DENSE.WARMUP_STEPS else self.cfg.DENSE.WEIGHT  # λ
        losses = {
            "loss": (1 - weight) * image + weight * dense,
            "loss/image": image.detach(),
            "loss/dense": dense.detach(),
        }
        return losses | {"stat/feature_std": feature_std(q)} | stats, [k, pooled]

    @torch.no_grad()
    def correspond(
        self, z_q: Tensor, z_k: Tensor, query_view: View, key_view: View
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The positives c: bool ``[B, N, N]``, and what they are made of."""
        options, grid = self.cfg.SETSIM, tuple(z_q.shape[2:])
        salient_q = salient(z_q, options.THRESHOLD, options.STATISTIC)  # Ω_q
        salient_k = salient(z_k, options.THRESHOLD, options.STATISTIC)
        sets = set_to_set(salient_q, salient_k)
        if not options.SET:
            sets = torch.zeros_like(sets)
        elif options.MIN_COSINE:
            sets = sets & (cosine(z_q, z_k) >= options.MIN_COSINE)
        c = sets
        if options.GEOMETRY_THRESHOLD:
            c = c | geometric(
                query_view, key_view, grid, options.GEOMETRY_THRESHOLD, options.GEOMETRY_FRAME
            )
        before = c
        if options.NEAREST:
            rows = c.any(2) if options.NEAREST_ROWS == "valid" else salient_q
            c = c | (one_hot(nearest(z_q, z_k), c.shape[2]) & rows[:, :, None])
        images = len(c)
        stats = {
            "stat/set_size": (salient_q.sum() + salient_k.sum()) / (2 * images),
            "stat/positives_per_query": c.sum() / c.any(2).sum().clamp_min(1),
            "stat/queries": c.any(2).sum() / images,
            "stat/empty_images": (~c.flatten(1).any(1)).float().mean(),
            "stat/pairs_set": sets.sum() / images,
            "stat/pairs_geometry": (before & ~sets).sum() / images,  # added by Geo
            "stat/pairs_nearest": (c & ~before).sum() / images,  # added by NN
        }
        return c, stats
