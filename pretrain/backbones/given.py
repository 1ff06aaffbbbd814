"""Any module as a backbone: torchvision's and timm's networks, one's own."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from densessl.core.errors import InputError
from densessl.weight_files.timm_networks import TimmLevels

from .build import levels_of, tried
from .contract import Backbone
from .resnet import LEVELS, ResNet
from .vit import VisionTransformer

WHERE = "backbone"  # what messages call it
PARTS = ("conv1", "bn1", "relu", "maxpool", *LEVELS)  # of torchvision's ResNets


class Maps(nn.Module):
    """A module that gives a map or a list of maps, of which the last ones become the levels.

    The last is ``layer4``, the one before ``layer3``, and so on. The state dict is the module's
    under ``module.``.
    """

    def __init__(self, module: nn.Module, channels: list[int]):
        super().__init__()
        self.module = module
        self.levels = LEVELS[-len(channels) :]
        self.channels = dict(zip(self.levels, channels[-len(LEVELS) :], strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = _maps(self.module(images))[-len(self.levels) :]
        return dict(zip(self.levels, maps, strict=True))


def as_backbone(module: nn.Module) -> Backbone:
    """``module`` as a :class:`Backbone`; its weights are shared, not copied.

    What may be given: a module with ``channels`` whose ``forward`` gives levels by name, one of
    them ``layer4``, or any network of :func:`densessl.load_backbone`; torchvision's
    ResNets (their classifier is left out); any module that gives a map ``[B, C, h, w]`` or a list
    of them, as timm's of ``features_only`` do. It is tried with one small image. Raises InputError
    for anything else.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"{WHERE} is a {type(module).__name__}; it must be a name or an nn.Module")
    kind = type(module).__name__
    if isinstance(getattr(module, "channels", None), Mapping):
        given: Any = module
        known = isinstance(module, VisionTransformer | TimmLevels)
        return given if known else tried(given, WHERE, f"{WHERE} ({kind})")
    if all(hasattr(module, part) for part in PARTS):
        return ResNet(module)
    try:
        maps = _maps(levels_of(module))
        shapes = [tuple(each.shape) for each in maps]
    except Exception as error:  # whatever a user's own module raises
        raise InputError(
            f"{WHERE} ({kind}) does not take an image [1, 3, 64, 64]: {type(error).__name__}: "
            f"{error}"
        ) from error
    if not shapes or any(len(shape) != 4 for shape in shapes):
        raise InputError(
            f"{WHERE} ({kind}) gives shapes {shapes}; allowed: a map [B, C, h, w], a list of maps, "
            "or levels by name with the attribute channels. Of timm's models "
            "create_model(…, features_only=True) gives maps"
        )
    return Maps(module, [shape[1] for shape in shapes])


def _maps(outputs: Any) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
