"""BYOL (Grill et al. 2020)."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..losses import negative_cosine
from ..views import View
from .base import LEVEL, feature_std, new_backbone
from .heads import MLP, unit
from .momentum import MomentumMethod, cosine_momentum, momentum_copy
from .signs import image_signs


class BYOL(MomentumMethod):
    """A view predicts the momentum encoder's projection of the other view.

    f, g, q     backbone, projector, predictor; momentum copies f', g'
    p_v         prediction q(g(f(view v)))               [B, D]
    z'_v        target g'(f'(view v)), no gradient       [B, D]
    L           Σ over both directions of 2 − 2 cos(p_v, z'_w)      (eq. 2)
    m           1 − (1 − m₀)(cos(π k / K) + 1) / 2 after step k of K
    """

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.options = cfg.BYOL
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[LEVEL]
        self.projector = MLP(channels, self.options.HIDDEN, self.options.DIM)
        self.predictor = MLP(self.options.DIM, self.options.HIDDEN, self.options.DIM)
        self.momentum_backbone = momentum_copy(self.backbone)
        self.momentum_projector = momentum_copy(self.projector)

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.momentum_backbone, self.backbone),
            (self.momentum_projector, self.projector),
        ]

    def momentum(self, step: int) -> float:
        return cosine_momentum(self.options.MOMENTUM, max(step - 1, 0), self.steps)

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        p, targets = [], []
        for view in views:
            z = self.projector(self.backbone(view.image)[LEVEL].mean((2, 3)))
            p.append(self.predictor(z))
            with torch.no_grad():
                pooled = self.momentum_backbone(view.image)[LEVEL].mean((2, 3))
                targets.append(self.momentum_projector(pooled))
        loss = 4 + 2 * (negative_cosine(p[0], targets[1]) + negative_cosine(p[1], targets[0]))
        first, second = map(unit, targets)
        values = {"loss": loss, "loss/image": loss.detach(), "stat/feature_std": feature_std(first)}
        return values | image_signs(first, second)
