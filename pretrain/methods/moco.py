"""MoCo-v1 and MoCo-v2 (He et al. 2020; Chen et al. 2020), and the same for positions."""

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl.core import distributed

from ..correspondence import Pair
from ..losses import info_nce, set_info_nce
from ..views import View
from .base import Method, feature_std, new_backbone
from .branch import Corresponding, matching_generator, weighted
from .heads import DenseProjector, Projector, Queue, unit
from .momentum import momentum_copy, momentum_update_
from .signs import image_signs, position_signs

OPTIONS = {
    # every method with a queue
    "MOCO.DIM": (128, ">= 1"),  # projection channels D
    # hidden channels of the projector; 0: one linear layer (MoCo-v1)
    "MOCO.HIDDEN": (2048, ">= 0"),
    "MOCO.QUEUE": (65536, ">= 1"),  # keys in the queue, K
    "MOCO.MOMENTUM": (0.999, ">= 0, <= 1"),  # of the momentum encoder, m
    "MOCO.TEMPERATURE": (0.2, "> 0"),  # τ
    "MOCO.SHUFFLE": True,  # ShuffleBN: permute the key batch before the momentum encoder
    "MOCO.SYMMETRIC": False,  # also view 2 as query against view 1 as key
    "MOCO.SYMMETRIC_REDUCTION": ("mean", ("mean", "sum")),  # of the two directions: mean, sum
    # keys of which direction enter the queue: both, second
    "MOCO.SYMMETRIC_ENQUEUE": ("both", ("both", "second")),
    # the dense branch of dense methods
    "DENSE.WEIGHT": (0.5, ">= 0, <= 1"),  # λ: loss = (1 − λ) image + λ dense
    "DENSE.WARMUP_STEPS": (0, ">= 0"),  # λ is 0 for so many steps
    "DENSE.DIM": (128, ">= 1"),  # channels of the dense projection
    "DENSE.HIDDEN": (2048, ">= 0"),  # hidden channels of the dense projector
    "DENSE.TEMPERATURE": (0.2, "> 0"),  # τ of the dense loss
    "DENSE.CORRESPONDENCE": "set & cosine>0.2 | geometry<0.5 | nearest",  # of dense, dense_simsiam
}

SHUFFLE_STREAM = 0x5A7F  # keeps this generator apart from the others of the same seed


class MoCo(Method):
    """Momentum contrast of whole images.

        f, g        backbone and projector; momentum copies f_k, g_k
        q           normalised query g(f(view 1))            [B, D]
        k           normalised key g_k(f_k(view 2))          [B, D]
        L_image     InfoNCE of q with k against the queue    (eq. 1)
        θ_k         ← m θ_k + (1 − m) θ_q, of f_k and g_k    (eq. 2)

    Symmetrised, the second direction swaps the views; both contrast with the queue as it was at the
    start of the step.
    """

    momentum_option, queue_option = "MOCO.MOMENTUM", "MOCO.QUEUE"
    accumulates = True

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.cfg, self.options, self.shuffles = cfg, cfg.MOCO, cfg.MOCO.SHUFFLE
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[self.level]
        self.projector = Projector(channels, self.options.HIDDEN, self.options.DIM)
        self.queue = Queue(self.options.QUEUE, self.options.DIM)
        self.momentum_backbone = momentum_copy(self.backbone)
        self.momentum_projector = momentum_copy(self.projector)

    def keys_kept(self) -> int:
        return self.options.QUEUE

    def before_step(self, step: int) -> None:
        momentum_update_(self, self.options.MOMENTUM)

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        first, second = views
        directions = [(first, second)]
        if self.options.SYMMETRIC:
            directions.append((second, first))
        kept: dict[tuple[int, int], Tensor] = {}
        scalars = []
        for number, (query_view, key_view) in enumerate(directions):
            values, keys = self.direction(query_view, key_view, step, number)
            scalars.append(values)
            kept |= {(number, queue): key for queue, key in enumerate(keys)}
        self.kept = kept
        merged = {name: torch.stack([v[name] for v in scalars]).mean(0) for name in scalars[0]}
        if self.options.SYMMETRIC_REDUCTION == "sum":
            merged |= {name: merged[name] * len(scalars) for name in merged if "loss" in name}
        return merged

    def direction(
        self, query_view: View, key_view: View, step: int, number: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Scalars of one direction (``number`` 0 or 1), and its keys, queue by queue."""
        q = unit(self.projector(self.backbone(query_view.image)[self.level]))
        (k,) = self.encode_keys(key_view.image, step, number)
        k = unit(k)
        loss = info_nce(q, k, self.queue.keys, self.options.TEMPERATURE)
        values = {"loss": loss, "loss/image": loss.detach(), "stat/feature_std": feature_std(q)}
        return values | image_signs(q, k), [k]

    @torch.no_grad()
    def encode_keys(self, images: Tensor, step: int, number: int) -> list[Tensor]:
        """The momentum encoder's outputs for ``images``, through the shuffled batch."""
        permutation = self.permutation(step, number, len(images))
        if permutation is not None:
            images = distributed.shuffle(images, permutation)
        outputs = self.momentum_outputs(self.momentum_backbone(images))
        if permutation is not None:
            outputs = [distributed.unshuffle(output, permutation) for output in outputs]
        return outputs

    def momentum_outputs(self, levels: dict[str, Tensor]) -> list[Tensor]:
        """What is computed of the momentum backbone's levels."""
        return [self.momentum_projector(levels[self.level])]

    def permutation(self, step: int, direction: int, images: int) -> Tensor | None:
        """ShuffleBN's permutation of the global batch: a function of seed, step and direction."""
        if not self.shuffles:
            return None
        rng = np.random.default_rng([SHUFFLE_STREAM, self.cfg.SEED, step, direction])
        return torch.from_numpy(rng.permutation(images * distributed.world_size()))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        queues = [module for module in self.children() if isinstance(module, Queue)]
        last = max((number for number, _ in self.kept), default=0)
        for (number, queue), keys in self.kept.items():
            if number == last or self.options.SYMMETRIC_ENQUEUE == "both":
                queues[queue].enqueue(distributed.gather(keys))
        self.kept = {}

    def ddp_ignored(self) -> list[str]:
        return [name for name, _ in self.named_buffers() if "queue" in name]


class DenseMoCo(Corresponding, MoCo):
    """MoCo, and the same for positions, with the positives that a correspondence gives.

        z_q, z_k    backbone maps of query and key          [B, C, h, w]
        p_q, p_k    dense projections, normalised           [B, D, N]
        c           positives of every query position       [B, N, N]
        L           (1 − λ) L_image + λ L_dense

    c is the expression ``DENSE.CORRESPONDENCE``, L_dense SetSim's loss (eq. 8, mean over an image's
    queries). Subclasses take others: :meth:`correspond`, with :meth:`check` of the options that it
    reads, and :meth:`dense_loss`. The key of the dense queue is the mean of an image's dense
    projections.
    """

    def __init__(self, cfg: CfgNode):
        self.check(cfg)
        super().__init__(cfg)
        self.dense_projector = DenseProjector(
            self.backbone.channels[self.level], cfg.DENSE.HIDDEN, cfg.DENSE.DIM
        )
        self.momentum_dense_projector = momentum_copy(self.dense_projector)
        self.dense_queue = Queue(cfg.MOCO.QUEUE, cfg.DENSE.DIM)
        self.prepare(cfg)

    def momentum_outputs(self, levels: dict[str, Tensor]) -> list[Tensor]:
        z = levels[self.level]
        return [self.momentum_projector(z), self.momentum_dense_projector(z), z]

    def direction(
        self, query_view: View, key_view: View, step: int, number: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        z_q = self.backbone(query_view.image)[self.level]  # [B, C, h, w]
        q = unit(self.projector(z_q))  # [B, D]
        p_q = unit(self.dense_projector(z_q))  # [B, D, h, w]
        k, p_k, z_k = self.encode_keys(key_view.image, step, number)
        k = unit(k)
        pooled = unit(p_k.mean((2, 3)))  # the dense queue's key, [B, D]
        p_k = unit(p_k)

        generator = matching_generator(self.cfg.SEED, step, number, self.part)
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
