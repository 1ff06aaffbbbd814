"""Backbones: images → named feature levels, with torchvision's names in their state dicts."""

from .norm import SplitBatchNorm2d, SyncBatchNorm2d
from .resnet import BACKBONES, build_backbone

__all__ = ["BACKBONES", "SplitBatchNorm2d", "SyncBatchNorm2d", "build_backbone"]
