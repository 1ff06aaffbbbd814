"""SimCLR (Chen et al. 2020)."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl.core import distributed

from ..losses import nt_xent
from ..views import View
from .base import Method, feature_std, new_backbone
from .heads import MLP, unit
from .signs import image_signs

OPTIONS = {
    "SIMCLR.DIM": (128, ">= 1"),  # projection channels
    "SIMCLR.HIDDEN": (2048, ">= 1"),  # hidden channels of the projector
    "SIMCLR.TEMPERATURE": (0.1, "> 0"),  # τ
}


class SimCLR(Method):
    """Every view against all other views of the batch, on all processes.

        f, g        backbone and projector
        z           normalised projections of both views     [2B, D]
        L           NT-Xent: InfoNCE of z_i with the other view of its image, against the other
                    2M − 2 views of the M images on all processes          (eq. 1)

    Both views are one forward pass, as in the official code.
    """

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.options = cfg.SIMCLR
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[self.level]
        self.projector = MLP(channels, self.options.HIDDEN, self.options.DIM)

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        B = len(views[0].image)
        maps = self.backbone(torch.cat([view.image for view in views]))[self.level]
        z = unit(self.projector(maps.mean((2, 3))))  # [2B, D]
        everyone = [distributed.gather_with_gradient(part) for part in z.split(B)]
        M = len(everyone[0])
        here = distributed.mine(torch.arange(M, device=z.device))  # [B]
        own, positive = torch.cat((here, here + M)), torch.cat((here + M, here))
        loss = nt_xent(z, torch.cat(everyone), own, positive, self.options.TEMPERATURE)
        values = {"loss": loss, "loss/image": loss.detach()}
        values["stat/feature_std"] = feature_std(z.detach())
        return values | image_signs(*z.detach().split(B))
