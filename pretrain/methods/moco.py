"""MoCo-v1 and MoCo-v2 (He et al. 2020; Chen et al. 2020)."""

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core import distributed

from ..losses import info_nce
from ..views import View
from .base import LEVEL, feature_std, new_backbone
from .heads import Projector, Queue, unit
from .momentum import MomentumMethod, momentum_copy
from .signs import image_signs

SHUFFLE_STREAM = 0x5A7F  # keeps this generator apart from the others of the same seed


class MoCo(MomentumMethod):
    """Momentum contrast of whole images.

        f, g        backbone and projector; momentum copies f_k, g_k
        q           normalised query g(f(view 1))            [B, D]
        k           normalised key g_k(f_k(view 2))          [B, D]
        L_image     InfoNCE of q with k against the queue    (eq. 1)

    Symmetrised, the second direction swaps the views; both contrast with the queue as it was at the
    start of the step.
    """

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.cfg, self.options, self.shuffles = cfg, cfg.MOCO, cfg.MOCO.SHUFFLE
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[LEVEL]
        self.projector = Projector(channels, self.options.HIDDEN, self.options.DIM)
        self.queue = Queue(self.options.QUEUE, self.options.DIM)
        self.momentum_backbone = momentum_copy(self.backbone)
        self.momentum_projector = momentum_copy(self.projector)
        self._keys: list[list[Tensor]] = []  # of this step: one list a direction

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.momentum_backbone, self.backbone),
            (self.momentum_projector, self.projector),
        ]

    def momentum(self, step: int) -> float:
        return self.options.MOMENTUM

    def keys_kept(self) -> int:
        return self.options.QUEUE

    def queues(self) -> list[Queue]:
        """The queues, in the order of the keys of :meth:`direction`."""
        return [self.queue]

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        first, second = views
        directions = [(first, second)]
        if self.options.SYMMETRIC:
            directions.append((second, first))
        self._keys, scalars = [], []
        for number, (query_view, key_view) in enumerate(directions):
            values, keys = self.direction(query_view, key_view, step, number)
            scalars.append(values)
            self._keys.append(keys)
        merged = {name: torch.stack([v[name] for v in scalars]).mean(0) for name in scalars[0]}
        if self.options.SYMMETRIC_REDUCTION == "sum":
            merged |= {name: merged[name] * len(scalars) for name in merged if "loss" in name}
        return merged

    def direction(
        self, query_view: View, key_view: View, step: int, number: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Scalars of one direction (``number`` 0 or 1), and its keys for each queue."""
        q = unit(self.projector(self.backbone(query_view.image)[LEVEL]))
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
        return [self.momentum_projector(levels[LEVEL])]

    def permutation(self, step: int, direction: int, images: int) -> Tensor | None:
        """ShuffleBN's permutation of the global batch: a function of seed, step and direction."""
        if not self.shuffles:
            return None
        rng = np.random.default_rng([SHUFFLE_STREAM, self.cfg.SEED, step, direction])
        return torch.from_numpy(rng.permutation(images * distributed.world_size()))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        used = self._keys if self.options.SYMMETRIC_ENQUEUE == "both" else self._keys[-1:]
        for keys in used:
            for queue, new in zip(self.queues(), keys, strict=True):
                queue.enqueue(distributed.gather(new))
        self._keys = []

    def ddp_ignored(self) -> list[str]:
        return [name for name, _ in self.named_buffers() if "queue" in name]
