"""PixPro (Xie et al. 2021)."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..correspondence import geometric
from ..losses import negative_cosine, propagated_consistency
from ..views import View
from .base import Method, feature_std, new_backbone
from .heads import MLP, unit
from .momentum import cosine_momentum, momentum_copy, momentum_update_
from .signs import image_signs, position_signs

OPTIONS = {
    "PIXPRO.DIM": (256, ">= 1"),  # channels of the projection
    "PIXPRO.HIDDEN": (4096, ">= 1"),  # hidden channels of projector and instance predictor
    # of the momentum encoder at the start; rises to 1 by a cosine
    "PIXPRO.MOMENTUM": (0.99, ">= 0, <= 1"),
    "PIXPRO.THRESHOLD": (0.7, "> 0"),  # distance, in cell diagonals, below which positions match
    # of the distance: pixpro (official), pixels (exact crop edges)
    "PIXPRO.FRAME": ("pixpro", ("pixpro", "pixels")),
    "PIXPRO.EXPONENT": (2.0, "> 0"),  # γ: similarity is max(cosine, 0)^γ
    "PIXPRO.TRANSFORM_LAYERS": (1, ">= 0, <= 2"),  # of the propagation's value transform g: 0, 1, 2
    "PIXPRO.INSTANCE_WEIGHT": (0.0, ">= 0"),  # of the loss of whole images; 0: no instance branch
}


class PixPro(Method):
    """A propagated map predicts the momentum encoder's map where both views show the same place.

        f, g        backbone and convolutional projector; momentum copies f', g'
        x_v         projection g(f(view v))                  [B, D, h, w]
        y_v         propagated x_v (PPM, eq. 3–4)
        x'_v        target g'(f'(view v)), no gradient       [B, D, h, w]
        A           positions closer than T cell diagonals   bool [B, N, N]    (eq. 1)
        L           −2 mean_A cos(y₁, x'₂) − 2 mean_Aᵀ cos(y₂, x'₁)            (eq. 5)
        m           1 − (1 − m₀)(cos(π k / K) + 1) / 2 before step k of K

    ``PIXPRO.INSTANCE_WEIGHT`` adds the loss of whole images (section 3.3): a projector and a
    predictor of their own, pooled, −2 cos in both directions.
    """

    schedules = ("steps",)
    accumulates = True
    dense = True
    momentum_option = "PIXPRO.MOMENTUM"

    def __init__(self, cfg: CfgNode):
        super().__init__()
        options = self.options = cfg.PIXPRO
        self.backbone = new_backbone(cfg)
        channels, D, hidden = self.backbone.channels[self.level], options.DIM, options.HIDDEN
        self.projector = MLP(channels, hidden, D, dense=True)
        self.value_transform = (nn.Identity(), nn.Conv2d(D, D, 1), MLP(D, D, D, dense=True))[
            options.TRANSFORM_LAYERS
        ]
        self.momentum_backbone = momentum_copy(self.backbone)
        self.momentum_projector = momentum_copy(self.projector)
        if options.INSTANCE_WEIGHT:
            self.instance_projector = MLP(channels, hidden, D, dense=True)
            self.instance_predictor = MLP(D, hidden, D, dense=True)
            self.momentum_instance_projector = momentum_copy(self.instance_projector)

    def before_step(self, step: int) -> None:
        momentum_update_(self, cosine_momentum(self.options.MOMENTUM, step, self.steps))

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        maps = [self.backbone(view.image)[self.level] for view in views]  # [B, C, h, w]
        with torch.no_grad():
            momentum_maps = [self.momentum_backbone(view.image)[self.level] for view in views]
            targets = [self.momentum_projector(z) for z in momentum_maps]  # [B, D, h, w]
        options, (h, w) = self.options, maps[0].shape[2:]
        A = geometric(views[0], views[1], (h, w), options.THRESHOLD, options.FRAME)
        x = [self.projector(z) for z in maps]  # [B, D, h, w]
        # The distance of two positions is the same from both sides.
        there = self.consistency(x[0], targets[1], A)
        back = self.consistency(x[1], targets[0], A.transpose(1, 2))
        loss = dense = -2 * (there + back)
        projections = [unit(target).flatten(2) for target in targets]
        values = {
            "loss/dense": dense.detach(),
            "stat/feature_std": feature_std(unit(targets[0].transpose(1, 3).flatten(0, 2))),
            **position_signs(*projections, A),
            "stat/positives": A.sum() / len(A),
            "stat/empty_images": (~A.flatten(1).any(1)).float().mean(),
        }
        if options.INSTANCE_WEIGHT:
            image, z = self.instance_loss(maps, momentum_maps)
            values |= {"loss/image": image.detach(), **image_signs(*map(unit, z))}
            loss = loss + options.INSTANCE_WEIGHT * image
        return {"loss": loss, **values}

    def consistency(self, x: Tensor, target: Tensor, A: Tensor) -> Tensor:
        """Mean over A of the cosine of the propagated x with the target: scalar (eq. 3–5)."""
        return propagated_consistency(x, self.value_transform(x), target, A, self.options.EXPONENT)

    def instance_loss(
        self, maps: list[Tensor], momentum_maps: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss of whole images, pooled behind their heads, and its targets ``[B, D]``."""
        p = [self.instance_predictor(self.instance_projector(z)).mean((2, 3)) for z in maps]
        with torch.no_grad():
            z = [self.momentum_instance_projector(each).mean((2, 3)) for each in momentum_maps]
        return 2 * (negative_cosine(p[0], z[1]) + negative_cosine(p[1], z[0])), z
