"""The fully convolutional head of the semantic segmentation protocols."""

from collections.abc import Sequence
from itertools import pairwise

from densessl.core.errors import InputError

from .. import compat

compat.setup()
import torch  # noqa: E402
from detectron2.config import configurable  # noqa: E402
from detectron2.layers import Conv2d, ShapeSpec, get_norm  # noqa: E402
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY  # noqa: E402
from fvcore.nn.weight_init import c2_msra_fill  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


@SEM_SEG_HEADS_REGISTRY.register()
class FCNHead(nn.Module):
    """Two 3x3 convolutions, one more over their input and output together, and a classifier.

    The head of mmsegmentation's FCN (Long et al., "Fully Convolutional Networks for Semantic
    Segmentation"), with an optional auxiliary head on an earlier feature map, of convolutions and a
    classifier alone, whose loss is weighted. Without CONCAT_INPUT, with DILATION 6 and no dropout
    it is the head of MoCo v1's segmentation protocol.

    Its loss is the cross entropy averaged over *all* pixels: those of the ignored label count in
    the divisor (mmsegmentation's; Detectron2's own heads divide by the others alone).
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        in_feature: str,
        aux_in_feature: str | None,
        main: dict,
        aux: dict,
        align_corners: bool,
        ignore_value: int,
        loss_weight: float,
        aux_loss_weight: float,
    ):
        """``main`` and ``aux``: what :class:`Branch` takes beside ``in_channels``."""
        super().__init__()
        self.in_feature, self.aux_in_feature = in_feature, aux_in_feature
        self.align_corners, self.ignore_value = align_corners, ignore_value
        self.loss_weight, self.aux_loss_weight = loss_weight, aux_loss_weight
        self.main = Branch(input_shape[in_feature].channels, **main)
        self.aux = None
        if aux_in_feature:
            self.aux = Branch(input_shape[aux_in_feature].channels, **aux)

    @classmethod
    def from_config(cls, cfg, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        _check(head, input_shape)
        both = {"num_classes": head.NUM_CLASSES, "norm": head.NORM, "dropout": head.DROPOUT}
        return {
            "input_shape": input_shape,
            "in_feature": head.IN_FEATURES[0],
            "aux_in_feature": head.AUX_IN_FEATURES[0] if head.AUX_IN_FEATURES else None,
            "main": both
            | {
                "channels": head.CONVS_DIM,
                "num_convs": head.NUM_CONVS,
                "dilation": head.DILATION,
                "concat_input": head.CONCAT_INPUT,
            },
            "aux": both | {"channels": head.AUX_CONVS_DIM, "num_convs": head.AUX_NUM_CONVS},
            "align_corners": head.ALIGN_CORNERS,
            "ignore_value": head.IGNORE_VALUE,
            "loss_weight": head.LOSS_WEIGHT,
            "aux_loss_weight": head.AUX_LOSS_WEIGHT,
        }

    def forward(self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None):
        """Losses in training, logits otherwise, in the form of Detectron2's heads.

        ``features``: ``[B, C', h, w]`` each; ``targets``: long ``[B, H, W]``. In training
        ``(None, {"loss_sem_seg": …, "loss_aux": …})``; otherwise ``(logits [B, C, h, w], {})``, at
        the features' resolution: the image's size is the segmentor's to know.
        """
        logits = self.main(features[self.in_feature])
        if not self.training:
            return logits, {}
        assert targets is not None  # the segmentor refuses training images without labels
        losses = {"loss_sem_seg": self.loss_weight * self._loss(logits, targets)}
        if self.aux is not None and self.aux_in_feature is not None:
            aux_loss = self._loss(self.aux(features[self.aux_in_feature]), targets)
            losses["loss_aux"] = self.aux_loss_weight * aux_loss
        return None, losses

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = upsample(logits, targets.shape[-2:], self.align_corners)
        each = F.cross_entropy(logits, targets, ignore_index=self.ignore_value, reduction="none")
        return each.mean()


class Branch(nn.Module):
    """3x3 convolutions with norm and ReLU, Dropout2d and a 1x1 classifier.

    ``concat_input`` adds a convolution over the input beside the others' output. ``dilation`` is
    that of the others. Convolutions have a bias only without a norm.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int,
        num_classes: int,
        num_convs: int,
        norm: str,
        dropout: float,
        dilation: int = 1,
        concat_input: bool = False,
    ):
        super().__init__()
        widths = [in_channels] + [channels] * num_convs
        self.convs = nn.Sequential(*(_conv(i, o, norm, dilation) for i, o in pairwise(widths)))
        self.conv_cat = _conv(in_channels + channels, channels, norm) if concat_input else None
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, in_channels, h, w]`` → logits ``[B, num_classes, h, w]``."""
        y = self.convs(x)
        if self.conv_cat is not None:
            y = self.conv_cat(torch.cat([x, y], dim=1))
        return self.classifier(self.dropout(y))


def upsample(logits: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """Logits ``[B, C, h, w]`` bilinearly at ``size`` (height, width), in float32 also under AMP."""
    return F.interpolate(logits.float(), list(size), mode="bilinear", align_corners=align_corners)


def _conv(in_channels: int, out_channels: int, norm: str, dilation: int = 1) -> Conv2d:
    layer = Conv2d(
        in_channels,
        out_channels,
        kernel_size=3,
        padding=dilation,
        dilation=dilation,
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu_,
    )
    c2_msra_fill(layer)  # Kaiming normal by fan-out for a ReLU, bias 0: mmcv's ConvModule too
    return layer


def _check(head, input_shape: dict[str, ShapeSpec]) -> None:
    for key, allowed in (("IN_FEATURES", "one name"), ("AUX_IN_FEATURES", "one name or none")):
        names = list(head[key])
        missing = [name for name in names if name not in input_shape]
        if missing or len(names) > 1 or (key == "IN_FEATURES" and not names):
            raise InputError(
                f"MODEL.SEM_SEG_HEAD.{key} is {names}; allowed in FCNHead: {allowed} of "
                f"MODEL.RESNETS.OUT_FEATURES, {', '.join(input_shape)}"
            )
    for key in ("NUM_CONVS", "AUX_NUM_CONVS", "DILATION"):
        if head[key] < 1:
            raise InputError(f"MODEL.SEM_SEG_HEAD.{key} is {head[key]}; allowed: 1 or more")
    if not 0 <= head.DROPOUT < 1:
        raise InputError(f"MODEL.SEM_SEG_HEAD.DROPOUT is {head.DROPOUT}; allowed: 0 up to below 1")
