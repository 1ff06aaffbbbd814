"""Backbones by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from densessl.core.errors import InputError, unknown
from densessl.core.external import MARK, load_object
from densessl.weight_files import timm_networks
from densessl.weight_files.channels import renew_first

from ..options import BACKBONES, PATCH
from .contract import Backbone
from .norm import SplitBatchNorm2d, SyncBatchNorm
from .resnet import RESNETS, STRIDES, ResNet
from .vit import LEVELS, VITS, build_vit

SIDE = 64  # pixels of the image that one's own backbone is tried with
assert (*RESNETS, *VITS) == BACKBONES


def build_backbone(
    name: str,
    norm: str = "split",
    group_size: int = 32,
    zero_init_residual: bool = False,
    drop_path: float = 0.0,
) -> Backbone:
    """A backbone by name, freshly initialised: a ResNet as torchvision's, a ViT as DINO's.

    ``norm`` in the place of batch norm is ``"split"`` (:class:`SplitBatchNorm2d`), ``"BN"`` (per
    process) or ``"SyncBN"``; ``drop_path`` is for a ViT and for timm's networks. The state dict has
    torchvision's (timm's) names without the classifier. ``timm/NAME`` is a network of timm's as it
    initialises it (see :mod:`densessl.weight_files.timm_networks`). ``path/to/file.py:Name`` is
    called with the norm (of channels a module) and returns a module of one's own, as
    docs/methods.md says. Raises InputError for unknown names.
    """
    norms: dict[str, Callable[[int], nn.Module]] = {
        "split": partial(SplitBatchNorm2d, group_size=group_size),
        "BN": nn.BatchNorm2d,
        "SyncBN": SyncBatchNorm,
    }
    if norm not in norms:
        raise unknown("norm", norm, norms, where="BACKBONE.NORM")
    if MARK in name:
        return _own(name, norms[norm])
    if timm_networks.is_timm(name):
        network = timm_networks.build(name, drop_path, "BACKBONE.NAME")
        timm_networks.replace_norms(network, norms[norm])
        return network
    if name not in BACKBONES:
        raise unknown("backbone", name, BACKBONES, where="BACKBONE.NAME")
    if name in VITS:
        return build_vit(name, drop_path)
    return ResNet(RESNETS[name](norm_layer=norms[norm], zero_init_residual=zero_init_residual))


def with_channels(network: Any, channels: int) -> Any:
    """A fresh network whose first convolution takes images of so many channels: 3 as it is.

    Its weights are drawn anew, so that its outputs spread as before. InputError where no
    convolution of three channels is first.
    """
    if not renew_first(network, channels):
        raise InputError(
            "DATA.CHANNELS is not 3, and the backbone (BACKBONE.NAME) does not begin with a "
            "convolution of 3 channels that another could take the place of"
        )
    return network


def strides_of(name: str) -> Mapping[str, int]:
    """Pixels a position of each level of the backbone ``name``, from the first to the last.

    Nothing is built; of one's own backbone it is empty. Raises InputError for a network that timm
    lacks, EnvironmentLacks where timm is not installed.
    """
    if MARK in name:
        return {}
    if timm_networks.is_timm(name):
        return timm_networks.described(name, "BACKBONE.NAME").strides
    return dict.fromkeys(LEVELS.values(), PATCH) if name in VITS else STRIDES


class _Levels(dict):
    """A backbone's channels by level; one that it lacks is the user's mistake."""

    def __missing__(self, level: str):
        raise InputError(
            f"BACKBONE.NAME: your backbone has no level '{level}', which this method takes; it has "
            f"{', '.join(self)}"
        )


def _own(name: str, norm: Callable[[int], nn.Module]) -> Backbone:
    """A backbone out of a user's file, once it has shown that it gives what it says it gives."""
    where = f"BACKBONE.NAME: {name}"
    if name.startswith("vit"):
        raise InputError(f"{where} looks like one of our ViTs; write ./{name}")
    made = load_object(name, "backbone", "BACKBONE.NAME")
    try:
        backbone = made(norm)
    except Exception as error:  # whatever a user's own code raises
        raise _no_backbone(f"{where}(norm)", error) from error
    return tried(backbone, where, f"{where}(norm)")


def _no_backbone(call: str, error: Exception) -> InputError:
    return InputError(f"{call} makes no backbone: {type(error).__name__}: {error}")


def tried(backbone: Any, where: str, call: str) -> Backbone:
    """A user's backbone, once it has shown that it gives what it says it gives; else InputError.

    ``where``: what messages call it; ``call``: what made it.
    """
    try:
        levels = levels_of(backbone)
        found = {level: tuple(each.shape[:2]) for level, each in levels.items()}
        declared = {level: (1, channels) for level, channels in backbone.channels.items()}
    except Exception as error:  # whatever a user's own code raises
        raise _no_backbone(call, error) from error
    if "layer4" not in declared or any(
        found.get(level) != shape for level, shape in declared.items()
    ):
        shapes = {level: tuple(each.shape) for level, each in levels.items()}
        raise InputError(
            f"{where} has the channels {dict(backbone.channels)}, and its levels the shapes "
            f"{shapes}; allowed: a level 'layer4' at least, and each [B, channels, h, w]"
        )
    backbone.channels = _Levels(backbone.channels)
    return backbone


@torch.no_grad()
def levels_of(module: nn.Module) -> Any:
    """What a module gives of one small image, in evaluation mode; its mode stays as it was."""
    modes = {each: each.training for each in module.modules()}
    first = next(module.parameters(), torch.zeros(()))
    try:
        return module.eval()(torch.zeros(1, 3, SIDE, SIDE).to(first))
    finally:
        for each, training in modes.items():
            each.training = training
