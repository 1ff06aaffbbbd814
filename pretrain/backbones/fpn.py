"""A feature pyramid (Lin et al. 2017) whose weights fit Detectron2's."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from .resnet import LEVELS


class FPN(nn.Module):
    """Lateral 1×1 convolutions, the top-down path, and 3×3 output convolutions.

        sum_l = lateral_l(C_l) + up(sum_{l+1})        P_l = output_l(sum_l)

    ``channels`` maps backbone levels (``layer1`` … ``layer4``) to their C; ``outputs`` are the
    levels that get an output convolution; laterals exist from the lowest of them up to layer4.
    ``forward(levels)`` gives ``{level: [B, dim, h, w]}`` for these. ``norm`` "BN" puts batch norm
    behind every convolution, which then has no bias. Level layer4 is Detectron2's res5: its
    convolutions are called ``fpn_lateral5`` and ``fpn_output5``. Initialised as Detectron2's
    (Caffe2's Xavier). Raises ValueError in the forward pass when a level's side is not twice that
    of the one above.
    """

    def __init__(self, channels: Mapping[str, int], outputs: list[str], dim: int, norm: str = ""):
        super().__init__()
        self.levels = [level for level in LEVELS if level >= min(outputs)]
        self.outputs = sorted(outputs)
        for level in self.levels:
            setattr(self, f"fpn_lateral{_number(level)}", _conv(channels[level], dim, 1, norm))
        for level in self.outputs:
            setattr(self, f"fpn_output{_number(level)}", _conv(dim, dim, 3, norm))

    def forward(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        found, above = {}, None
        for level in reversed(self.levels):
            here = getattr(self, f"fpn_lateral{_number(level)}")(levels[level])
            if above is not None:
                if [2 * side for side in above.shape[2:]] != list(here.shape[2:]):
                    raise ValueError(
                        f"{level} is {list(here.shape[2:])} and the level above "
                        f"{list(above.shape[2:])}: the image's sides must be multiples of 32"
                    )
                here = here + F.interpolate(above, scale_factor=2.0, mode="nearest")
            if level in self.outputs:
                found[level] = getattr(self, f"fpn_output{_number(level)}")(here)
            above = here
        return found


def _number(level: str) -> int:
    """Detectron2's number of a level: layer1 is res2."""
    return int(level[-1]) + 1


def _conv(channels: int, dim: int, side: int, norm: str) -> nn.Module:
    conv = nn.Conv2d(channels, dim, side, padding=side // 2, bias=not norm)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.BatchNorm2d(dim)) if norm else conv
