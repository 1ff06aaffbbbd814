"""The ResNet of FCN-R50-D8: output stride 8 by contracted dilation, loaded with plain weights."""

from densessl.core.errors import InputError

from .. import compat

compat.setup()
from detectron2.modeling import BACKBONE_REGISTRY  # noqa: E402
from detectron2.modeling.backbone.resnet import (  # noqa: E402
    BasicBlock,
    BasicStem,
    BottleneckBlock,
    ResNet,
)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STRIDES = (1, 2, 1, 1)  # of res2 … res5, behind the stem's 4
DILATIONS = (1, 1, 2, 4)


class DilatedBasicBlock(BasicBlock):
    """Detectron2's basic block with its first 3x3 convolution dilated, as in mmsegmentation."""

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1, **kwargs):
        super().__init__(in_channels, out_channels, **kwargs)
        self.conv1.dilation = self.conv1.padding = (dilation, dilation)


@BACKBONE_REGISTRY.register()
def build_resnet_d8_backbone(cfg, input_shape) -> ResNet:
    """A ResNet-18/34/50/101 of output stride 8, with the tensor names of Detectron2's own.

    res4 and res5 keep their resolution: their 3x3 convolutions are dilated by 2 and 4, and in each
    stage's first block by half of that, which is the dilation that its input already has
    (mmsegmentation's ``contract_dilation``; DenseCL, configs/densecl/fcn_r50-d8.py). So ResNet-50's
    dilations are 1 2 2 2 2 2 and 2 4 4. The stem is the plain one that pretrained weights have.

    Reads MODEL.RESNETS (DEPTH, NORM, OUT_FEATURES, STRIDE_IN_1X1 and the widths) and
    MODEL.BACKBONE.FREEZE_AT. Raises InputError for options that it does not have.
    """
    resnets = cfg.MODEL.RESNETS
    _check(resnets)
    basic = resnets.DEPTH < 50
    width, channels = resnets.STEM_OUT_CHANNELS, resnets.RES2_OUT_CHANNELS
    bottleneck = resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP
    stages = []
    for blocks, stride, dilation in zip(BLOCKS[resnets.DEPTH], STRIDES, DILATIONS, strict=True):
        options = {} if basic else _bottleneck_options(resnets, bottleneck)
        stages.append(
            ResNet.make_stage(
                DilatedBasicBlock if basic else BottleneckBlock,
                blocks,
                in_channels=width,
                out_channels=channels,
                stride_per_block=[stride] + [1] * (blocks - 1),
                dilation_per_block=[max(dilation // 2, 1)] + [dilation] * (blocks - 1),
                norm=resnets.NORM,
                **options,
            )
        )
        width, channels, bottleneck = channels, channels * 2, bottleneck * 2
    stem = BasicStem(input_shape.channels, resnets.STEM_OUT_CHANNELS, resnets.NORM)
    frozen = cfg.MODEL.BACKBONE.FREEZE_AT
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=frozen)


def _bottleneck_options(resnets, channels: int) -> dict:
    return {
        "bottleneck_channels": channels,
        "num_groups": resnets.NUM_GROUPS,
        "stride_in_1x1": resnets.STRIDE_IN_1X1,
    }


def _check(resnets) -> None:
    depth = resnets.DEPTH
    if depth not in BLOCKS:
        allowed = ", ".join(map(str, BLOCKS))
        raise InputError(f"MODEL.RESNETS.DEPTH is {depth}; allowed with output stride 8: {allowed}")
    needed = [("RES5_DILATION", 1), ("DEFORM_ON_PER_STAGE", [False] * 4)]
    if depth < 50:
        needed += [("RES2_OUT_CHANNELS", 64), ("NUM_GROUPS", 1)]
    for key, value in needed:
        if resnets[key] != value:
            raise InputError(
                f"MODEL.RESNETS.{key} is {resnets[key]}; allowed in build_resnet_d8_backbone with "
                f"depth {depth}: {value}"
            )
