"""The C4 region head of MoCo's detection protocol."""

from .. import compat

compat.setup()
from detectron2.layers import get_norm  # noqa: E402
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads  # noqa: E402


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
