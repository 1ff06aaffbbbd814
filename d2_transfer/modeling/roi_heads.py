"""Heads of regions: MoCo's C4 head, and ViTDet's, whose NORM may be ``LN``."""

from .. import compat

compat.setup()
from detectron2.layers import get_norm  # noqa: E402
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_MASK_HEAD_REGISTRY  # noqa: E402
from detectron2.modeling.roi_heads import (  # noqa: E402
    ROI_HEADS_REGISTRY,
    FastRCNNConvFCHead,
    Res5ROIHeads,
)
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead  # noqa: E402

from .timm_backbone import layer_norm  # noqa: E402


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """Res5ROIHeads with one more normalisation after res5's last ReLU (MoCo, appendix "Detection").

    Its kind is MODEL.RESNETS.NORM and its parameters are ``roi_heads.res5.norm.*``: they start
    fresh (weight 1, bias 0), as no backbone has them. Boxes and masks are both predicted from
    what it returns. MODEL.ROI_HEADS.FREEZE_RES5 keeps the pretrained blocks as they are, their
    batch norm with the pretrained statistics; the extra norm is trained even then.
    """

    def __init__(self, cfg, input_shape):
        super().__init__(cfg, input_shape)
        if cfg.MODEL.ROI_HEADS.FREEZE_RES5:
            for block in self.res5:
                block.freeze()
        norm = get_norm(cfg.MODEL.RESNETS.NORM, self.res5[-1].out_channels)
        if norm is not None:
            self.res5.add_module("norm", norm)


def _with_layer_norm(arguments: dict) -> dict:
    """Detectron2 0.5 has no LayerNorm over channels (NORM ``LN``), the official main has it."""
    return arguments | ({"conv_norm": layer_norm} if arguments["conv_norm"] == "LN" else {})


@ROI_BOX_HEAD_REGISTRY.register()
class ViTDetBoxHead(FastRCNNConvFCHead):
    """Convolutions, then linear layers, as MODEL.ROI_BOX_HEAD says."""

    @classmethod
    def from_config(cls, cfg, input_shape) -> dict:
        return _with_layer_norm(super().from_config(cfg, input_shape))


@ROI_MASK_HEAD_REGISTRY.register()
class ViTDetMaskHead(MaskRCNNConvUpsampleHead):
    """Convolutions and one transposed convolution, as MODEL.ROI_MASK_HEAD says."""

    @classmethod
    def from_config(cls, cfg, input_shape) -> dict:
        return _with_layer_norm(super().from_config(cfg, input_shape))
