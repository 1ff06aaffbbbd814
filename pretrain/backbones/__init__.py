"""Backbones: images → named feature levels, with torchvision's or timm's names in their states."""

from .build import BACKBONES, build_backbone, strides_of
from .contract import Backbone, last_level, pooled
from .fpn import FPN
from .norm import SplitBatchNorm2d, SyncBatchNorm

__all__ = [
    "BACKBONES",
    "FPN",
    "Backbone",
    "SplitBatchNorm2d",
    "SyncBatchNorm",
    "build_backbone",
    "last_level",
    "pooled",
    "strides_of",
]
