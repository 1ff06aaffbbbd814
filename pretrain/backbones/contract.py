"""What a backbone is, one of ours or one's own."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Backbone(Protocol):
    """A module from images to named feature levels.

    ResNets have ``layer1`` to ``layer4`` at strides 4, 8, 16, 32; ViTs ``block4``, ``block8`` and
    ``block12`` at stride 16, and beside them ``cls [B, C]``; timm's networks the one or the other;
    one's own has ``layer4`` at least.
    """

    @property
    def channels(self) -> Mapping[str, int]:
        """Of each level that is a map: its C, from the first level to the last."""
        ...

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """``[B, 3, H, W]`` → each level ``[B, C, H / stride, W / stride]``."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Under the names of torchvision (timm) without the classifier, or one's own."""
        ...

    # What else is used of a module:
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def requires_grad_(self, requires_grad: bool = True) -> "Backbone": ...
    def to(self, device: torch.device) -> "Backbone": ...
    def eval(self) -> "Backbone": ...


def pooled(levels: Mapping[str, Tensor]) -> Tensor:
    """What stands for a whole image ``[B, C]``: the class token, else the last map's mean."""
    return levels["cls"] if "cls" in levels else levels[last_level(levels)].mean((2, 3))


def last_level(levels: Iterable[str]) -> str:
    """The last map: ``layer4``, or of a ViT that after its last block."""
    names = [name for name in levels if name != "cls"]
    return "layer4" if "layer4" in names else names[-1]
