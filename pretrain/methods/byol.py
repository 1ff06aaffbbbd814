"""BYOL (Grill et al. 2020)."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ..losses import negative_cosine
from ..views import View
from .base import Method, feature_std, new_backbone
from .heads import MLP, unit
from .momentum import cosine_momentum, momentum_copy, momentum_update_
from .signs import image_signs

OPTIONS = {
    "BYOL.DIM": (256, ">= 1"),  # channels of projection and prediction
    "BYOL.HIDDEN": (4096, ">= 1"),  # hidden channels of projector and predictor
    # of the momentum encoder at the start; rises to 1 by a cosine
    "BYOL.MOMENTUM": (0.996, ">= 0, <= 1"),
}


class BYOL(Method):
    """A view predicts the momentum encoder's projection of the other view.

    f, g, q     backbone, projector, predictor; momentum copies f', g'
    p_v         prediction q(g(f(view v)))               [B, D]
    z'_v        target g'(f'(view v)), no gradient       [B, D]
    L           Σ over both directions of 2 − 2 cos(p_v, z'_w)      (eq. 2)
    m           1 − (1 − m₀)(cos(π k / K) + 1) / 2 after step k of K
    """

    schedules = ("steps",)
    accumulates = True
    momentum_option = "BYOL.MOMENTUM"

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.options = cfg.BYOL
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[self.level]
        self.projector = MLP(channels, self.options.HIDDEN, self.options.DIM)
        self.predictor = MLP(self.options.DIM, self.options.HIDDEN, self.options.DIM)
        self.momentum_backbone = momentum_copy(self.backbone)
        self.momentum_projector = momentum_copy(self.projector)

    def before_step(self, step: int) -> None:
        momentum_update_(self, cosine_momentum(self.options.MOMENTUM, max(step - 1, 0), self.steps))

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        p, targets = [], []
        for view in views:
            z = self.projector(self.backbone(view.image)[self.level].mean((2, 3)))
            p.append(self.predictor(z))
            with torch.no_grad():
                pooled = self.momentum_backbone(view.image)[self.level].mean((2, 3))
                targets.append(self.momentum_projector(pooled))
        loss = 4 + 2 * (negative_cosine(p[0], targets[1]) + negative_cosine(p[1], targets[0]))
        first, second = map(unit, targets)
        values = {"loss": loss, "loss/image": loss.detach(), "stat/feature_std": feature_std(first)}
        return values | image_signs(first, second)
