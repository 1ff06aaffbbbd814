"""Distillation: a backbone learns the features of a larger one that stays as it is."""

from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.nn.functional import interpolate

from densessl.core import files
from densessl.core.errors import InputError

from ..backbones import Backbone, last_level
from ..losses import negative_cosine
from ..views import View
from .base import Method, feature_std, frozen_backbone, new_backbone
from .branch import weighted
from .heads import unit
from .signs import image_signs, position_signs

OPTIONS = {
    "DISTILL.TEACHER": ("", "path"),  # weights of the larger network: any file that convert takes
    "DISTILL.NETWORK": "",  # its name, where the file does not say it: timm/NAME
}


class Distill(Method):
    """The student's maps follow a frozen teacher's of the same view, and so do their means.

        f           student's map of a view                        [B, C, h, w]
        t           teacher's map of it, without gradient          [B, C_t, h_t, w_t]
        q           1×1 convolution of f to C_t channels, resized to t's positions (bilinear)
        r           Pearson's correlation over channels
        L_image     1 − r(a linear layer of the mean of f, the mean of t)
        L_dense     1 − r(q, t), mean over positions
        L           (1 − λ) L_image + λ L_dense                    λ: DENSE.WEIGHT

    No view is compared with another, so nothing can collapse and a small batch will do. That a
    teacher's features are centred and scaled over channels before they are a target is of Wei et
    al. 2022 (Feature distillation, 3.2); the rest, without a paper, is ours.
    """

    accumulates = True

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.cfg = cfg
        self.backbone = new_backbone(cfg)
        self.teacher = teacher_of(cfg)
        self.teacher_level = last_level(self.teacher.channels)
        channels = self.backbone.channels[self.level]
        wanted = self.teacher.channels[self.teacher_level]
        self.projector = nn.Linear(channels, wanted)
        self.dense_projector = nn.Conv2d(channels, wanted, 1)

    @classmethod
    def facts(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"teacher_sha256": files.sha256(_file(cfg))}

    def train(self, mode: bool = True) -> "Distill":
        super().train(mode)
        self.teacher.eval()  # its batch norm keeps the statistics that it was trained with
        return self

    def ddp_ignored(self) -> list[str]:
        return [name for name, _ in self.named_buffers() if name.startswith("teacher.")]

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        image = torch.cat([view.image for view in views])
        f = self.backbone(image)[self.level]
        with torch.no_grad():
            t = self.teacher(image)[self.teacher_level]
        z, wanted = centred(self.projector(f.mean((2, 3)))), centred(t.mean((2, 3)))
        q = interpolate(self.dense_projector(f), t.shape[2:], mode="bilinear", align_corners=False)
        q, t = centred(q), centred(t)
        image_loss, dense_loss = 1 + negative_cosine(z, wanted), 1 + negative_cosine(q, t)
        values = weighted(self.cfg, step, image_loss, dense_loss)
        z, q, t = unit(z.detach()), unit(q.detach()).flatten(2), unit(t).flatten(2)
        own = torch.arange(q.shape[2], device=q.device).expand(len(q), -1)
        values["stat/feature_std"] = feature_std(z)
        return values | image_signs(z, unit(wanted)) | position_signs(q, t, own)


def centred(x: Tensor) -> Tensor:
    """``x [B, D, …]`` less its mean over D: the cosine of two such vectors is their correlation."""
    return x - x.mean(1, keepdim=True)


def teacher_of(cfg: CfgNode) -> Backbone:
    """The network in DISTILL.TEACHER, for the run's images; InputError where there is none."""
    name = cfg.DISTILL.NETWORK
    return frozen_backbone(cfg, _file(cfg), name, "DISTILL.TEACHER", "DISTILL.NETWORK")


def _file(cfg: CfgNode) -> str:
    if not Path(cfg.DISTILL.TEACHER).is_file():
        raise InputError(
            f"DISTILL.TEACHER is '{cfg.DISTILL.TEACHER}'; needed: the file of the network to learn "
            f"from, any that densessl convert takes (looked from {Path.cwd()})"
        )
    return cfg.DISTILL.TEACHER
