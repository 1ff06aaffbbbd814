"""What the protocols need on top of Detectron2's models; importing this package registers it."""

from .fcn_head import FCNHead
from .fcos import FCOS, build_resnet_fpn_p5_backbone
from .resnet_d8 import build_resnet_d8_backbone
from .roi_heads import Res5ROIHeadsExtraNorm, ViTDetBoxHead, ViTDetMaskHead
from .segmentor import DeepLabSegmentor, FCNSegmentor
from .timm_backbone import (
    SimpleFeaturePyramid,
    TimmBackbone,
    build_timm_fpn_backbone,
    build_timm_fpn_p5_backbone,
    build_timm_retinanet_fpn_backbone,
    build_vitdet_backbone,
)

__all__ = [
    "DeepLabSegmentor",
    "FCOS",
    "FCNHead",
    "FCNSegmentor",
    "Res5ROIHeadsExtraNorm",
    "SimpleFeaturePyramid",
    "TimmBackbone",
    "ViTDetBoxHead",
    "ViTDetMaskHead",
    "build_resnet_d8_backbone",
    "build_resnet_fpn_p5_backbone",
    "build_timm_fpn_backbone",
    "build_timm_fpn_p5_backbone",
    "build_timm_retinanet_fpn_backbone",
    "build_vitdet_backbone",
]
