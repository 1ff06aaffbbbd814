"""ViTDet's heads: Detectron2's own, whose NORM may be ``LN``, a LayerNorm over channels.

Detectron2 0.5 has no such norm, the official main has it.
"""

from .. import compat

compat.setup()
from detectron2.modeling import ROI_BOX_HEAD_REGISTRY, ROI_MASK_HEAD_REGISTRY  # noqa: E402
from detectron2.modeling.roi_heads import FastRCNNConvFCHead  # noqa: E402
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead  # noqa: E402

from .timm_backbone import layer_norm  # noqa: E402


def _with_layer_norm(arguments: dict) -> dict:
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
