"""Backbones: images → named feature levels, with torchvision's names in their state dicts."""

from .fpn import FPN
from .norm import SplitBatchNorm2d, SyncBatchNorm
from .resnet import BACKBONES, build_backbone

__all__ = ["BACKBONES", "FPN", "SplitBatchNorm2d", "SyncBatchNorm", "build_backbone"]
