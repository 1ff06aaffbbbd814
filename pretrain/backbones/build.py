"""Backbones by name."""

from functools import partial

from torch import nn

from densessl.core.errors import unknown

from ..options import CHOICES
from .norm import SplitBatchNorm2d, SyncBatchNorm
from .resnet import RESNETS, ResNet
from .vit import VITS, build_vit

BACKBONES = (*RESNETS, *VITS)
assert CHOICES["BACKBONE.NAME"] == BACKBONES


def build_backbone(
    name: str,
    norm: str = "split",
    group_size: int = 32,
    zero_init_residual: bool = False,
    drop_path: float = 0.0,
) -> nn.Module:
    """A backbone by name, freshly initialised: a ResNet as torchvision's, a ViT as DINO's.

    ``norm`` of a ResNet is ``"split"`` (:class:`SplitBatchNorm2d`), ``"BN"`` (per process) or
    ``"SyncBN"``; ``drop_path`` is for a ViT. The state dict has torchvision's (timm's) names
    without the classifier. Raises InputError for unknown names.
    """
    norms = {
        "split": partial(SplitBatchNorm2d, group_size=group_size),
        "BN": nn.BatchNorm2d,
        "SyncBN": SyncBatchNorm,
    }
    if name not in BACKBONES:
        raise unknown("backbone", name, BACKBONES, where="BACKBONE.NAME")
    if norm not in norms:
        raise unknown("norm", norm, norms, where="BACKBONE.NORM")
    if name in VITS:
        return build_vit(name, drop_path)
    return ResNet(RESNETS[name](norm_layer=norms[norm], zero_init_residual=zero_init_residual))
