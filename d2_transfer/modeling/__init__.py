"""Heads that the protocols need on top of Detectron2; importing this package registers them."""

from .res5_roi_heads import Res5ROIHeadsExtraNorm

__all__ = ["Res5ROIHeadsExtraNorm"]
