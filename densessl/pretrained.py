"""Backbones with weights in them: what any checkpoint holds, as a module of named levels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.transforms.v2 import functional

from .core.errors import InputError, nearest, unknown
from .d2_transfer.convert.conversion import with_images
from .d2_transfer.convert.prove import stride_as_caffe
from .decoding import Range, UnreadableImage, decode
from .decoding.channels import decode_channels
from .pretrain.backbones.resnet import ResNet
from .pretrain.backbones.vit import VisionTransformer, build_vit
from .weight_files import images, keys, timm_networks, vit
from .weight_files.channels import COLOURS, take_channels
from .weight_files.recognise import Source, from_file

NETWORKS = (*keys.NETWORKS, *vit.SIZES)
IN_FOLDER = ("backbone_final.pth", "model.safetensors")  # what a folder is asked for, in turn
CROP = 0.875  # side of the crop over the shorter side that the image is scaled to


@dataclass(frozen=True)
class ImageTransform:
    """An image as a network wants it: ``[C, H, W]``, normalised, its channels in that order.

    ``mean`` and ``std`` are of values in [0, 1], one a channel, in the order of ``channel_order``:
    ``RGB``, ``BGR``, or ``as stored`` of other than three channels. ``size``: the side of a square
    crop of the middle, after the shorter side is scaled to ``size / 0.875``; None leaves the image
    as large as it is. ``bounds``: the values that became 0 and 255 in the pretraining, of files of
    other than three channels that are not of 8 bits; None: each file's own.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = "RGB"
    size: int | None = None
    bounds: Range | None = None

    def __call__(self, image: Image.Image | Tensor | str | os.PathLike) -> Tensor:
        """``image``: a path (decoded as pretraining does), a PIL image, or a tensor ``[C, H, W]``
        of RGB or the stored channels: uint8, or floats in [0, 1]. InputError for a file that cannot
        be read, and for an image of another number of channels."""
        x = _rgb(image) if self.channel_order != images.AS_STORED else self._as_stored(image)
        if self.size:
            x = functional.resize(x, [round(self.size / CROP)], antialias=True)
            x = functional.center_crop(x, [self.size, self.size])
        x = x.flip(0) if self.channel_order == "BGR" else x
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std

    def _as_stored(self, image: Image.Image | Tensor | str | os.PathLike) -> Tensor:
        """The image as floats in [0, 1], ``[C, H, W]``, of C other than 3."""
        channels = len(self.mean)
        if isinstance(image, str | os.PathLike):
            try:
                x = torch.from_numpy(decode_channels(image, channels, self.bounds).values)
            except (UnreadableImage, OSError) as error:
                raise InputError(f"{image} cannot be read: {error}") from None
            return x.permute(2, 0, 1).float() / 255
        x = image if isinstance(image, Tensor) else functional.pil_to_tensor(image)
        if x.shape[0] != channels:
            raise InputError(f"the image has {x.shape[0]} channels; allowed: {channels}")
        return x if x.is_floating_point() else x.float() / 255


def _rgb(image: Image.Image | Tensor | str | os.PathLike) -> Tensor:
    """The image as floats in [0, 1], ``[3, H, W]``."""
    if isinstance(image, Tensor):
        x = image
    else:
        if not isinstance(image, Image.Image):
            try:
                image = decode(Path(image)).image
            except (UnreadableImage, OSError) as error:
                raise InputError(f"{image} cannot be read: {error}") from None
        x = functional.pil_to_tensor(image.convert("RGB"))
    return x if x.is_floating_point() else x.float() / 255


class PretrainedBackbone(nn.Module):
    """A backbone and what is known of it: :func:`load_backbone` makes them.

    ``forward(images [B, C, H, W])`` gives its levels by name, each ``[B, C, H / stride,
    W / stride]``: of a ResNet, and of timm's pyramids, ``layer1`` to ``layer4``; of a ViT
    ``block4``, ``block8`` and ``block12`` (patch tokens behind the final LayerNorm), and beside
    them the class token, ``cls [B, C]``. The state dict has torchvision's (timm's) names without
    the classifier.

    Attributes:
        name: of the network: ``resnet50``, ``vit_small``, ``timm/convnext_tiny``.
        levels: the levels that ``forward`` gives.
        channels: of each level that is a map, its C.
        strides: of each level that is a map, its pixels a position.
        normalization: ``mean`` and ``std`` of values in [0, 1], one a channel of the images, and
            ``channel_order``: ``RGB``, ``BGR``, or ``as stored`` of other than three channels.
        transform: from an image (a path, PIL's or a tensor) to what ``forward`` takes.
        method: that pretrained it; ``random`` where nothing did.
        notes: what people should know of the weights, a line each.
    """

    name: str
    levels: tuple[str, ...]
    channels: dict[str, int]
    strides: dict[str, int]
    normalization: dict[str, Any]
    transform: ImageTransform
    method: str
    notes: list[str]

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> dict[str, Tensor]: ...

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = super().forward(images)
        return {level: found[level] for level in self.levels}


class PretrainedResNet(PretrainedBackbone, ResNet):
    """A ResNet with weights in it."""


class PretrainedViT(PretrainedBackbone, VisionTransformer):
    """A vision transformer with weights in it; images of any size from 16 pixels on."""


class FeatureInfo:
    """What timm's models of ``features_only`` say of their maps, a list each, in their order."""

    def __init__(self, backbone: PretrainedBackbone, levels: Sequence[str]):
        self._backbone, self._levels = backbone, list(levels)

    def channels(self) -> list[int]:
        return [self._backbone.channels[level] for level in self._levels]

    def reduction(self) -> list[int]:
        """Pixels a position."""
        return [self._backbone.strides[level] for level in self._levels]

    def module_name(self) -> list[str]:
        return list(self._levels)

    def __len__(self) -> int:
        return len(self._levels)


class FeatureList(nn.Module):
    """A backbone as timm's ``features_only`` has it: images → a list of maps ``[B, C, h, w]``."""

    def __init__(self, backbone: PretrainedBackbone):
        super().__init__()
        self.backbone = backbone
        maps = [level for level in backbone.levels if level in backbone.channels]
        self.feature_info = FeatureInfo(backbone, maps)
        self.normalization, self.transform = backbone.normalization, backbone.transform

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> list[Tensor]: ...

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = self.backbone(images)
        return [levels[level] for level in self.feature_info.module_name()]


@overload
def load_backbone(
    path_or_name: str | os.PathLike,
    *,
    features_only: Literal[True],
    levels: Sequence[str] | None = None,
    size: int | None = None,
    source: str = "auto",
    branch: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str | None = None,
    stride_in_1x1: bool | None = None,
) -> FeatureList: ...
@overload
def load_backbone(
    path_or_name: str | os.PathLike,
    *,
    features_only: Literal[False] = False,
    levels: Sequence[str] | None = None,
    size: int | None = None,
    source: str = "auto",
    branch: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str | None = None,
    stride_in_1x1: bool | None = None,
) -> PretrainedBackbone: ...
def load_backbone(
    path_or_name: str | os.PathLike,
    *,
    features_only: bool = False,
    levels: Sequence[str] | None = None,
    size: int | None = None,
    source: str = "auto",
    branch: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str | None = None,
    stride_in_1x1: bool | None = None,
) -> PretrainedBackbone | FeatureList:
    """The backbone in a checkpoint, of any layout that ``densessl convert`` reads.

    Nothing in the file is run, and every tensor must be there. Like any new module it is in
    training mode: call ``eval()`` for frozen features.

    Args:
        path_or_name: a checkpoint file; the folder of a pretraining, or one with
            ``model.safetensors``; or a network's name (``resnet50``, ``vit_small``,
            ``timm/convnext_tiny``), which has random weights and wants ImageNet's normalisation.
        features_only: return a :class:`FeatureList`, which gives a list of maps as timm's does.
        levels: those that are wanted; all of them unless named.
        size: side of the square crop that ``transform`` makes; None: it leaves the size as it is.
        source: the layout of the file, as ``--from`` of ``densessl convert``; ``auto`` finds it.
        branch: which network of the file, as ``--branch``: ``query``, ``teacher``, ….
        mean: of the channels of the images that the weights want, where the file does not say it.
        std: their standard deviations.
        channel_order: of those images, ``RGB`` or ``BGR``.
        stride_in_1x1: whether a ResNet's blocks have their stride in the first convolution.

    Raises:
        InputError: for a file that is not understood, as ``densessl convert`` does, and for a
            level that the network lacks.
        EnvironmentLacks: where a ViT needs timm, and it is not installed.

    Example::

        backbone = densessl.load_backbone("output/moco/backbone_final.pth").eval()
        levels = backbone(backbone.transform("street.jpg")[None])
        levels["layer4"].shape  # [1, 2048, H / 32, W / 32]
    """
    name = os.fspath(path_or_name)
    if (name in NETWORKS or timm_networks.is_timm(name)) and not Path(name).exists():
        backbone = _network(name)
        _describe(backbone, name, dict(images.IMAGENET), "random", [], levels, size)
    else:
        _, found = from_file(_file(name), source, branch)
        found = with_images(found, mean, std, channel_order, stride_in_1x1)
        backbone = _loaded(found)
        _describe(
            backbone, found.network, found.normalization, found.method, found.notes, levels, size
        )
        if found.channels != COLOURS and (bounds := found.pretrain.get("range")):
            low, high = map(float, bounds)
            backbone.transform = replace(backbone.transform, bounds=(low, high))
    return FeatureList(backbone) if features_only else backbone


def _file(name: str) -> Path:
    """The checkpoint that a path means; InputError where there is none."""
    path = Path(name).expanduser()
    if path.is_dir():
        for each in IN_FOLDER:
            if (path / each).is_file():
                return path / each
        raise InputError(
            f"{path} is a folder without {' or '.join(IN_FOLDER)}; give a checkpoint file"
        )
    if not path.exists():
        hint = nearest(name, NETWORKS) if os.sep not in name else None
        meant = f" Did you mean '{hint}'?" if hint else ""
        raise InputError(
            f"'{name}' is no file or folder (looked from {Path.cwd()}), and no network's name."
            f"{meant} Networks: {', '.join(NETWORKS)}"
        )
    return path


def _network(name: str, channels: int = COLOURS) -> Any:
    """The network of that name with new weights, on torch's device of the moment."""
    if timm_networks.is_timm(name):
        made = timm_networks.build(name, channels=channels)
        made.__class__ = type("PretrainedTimm", (PretrainedBackbone, type(made)), {})
        return made
    made = (
        PretrainedViT(build_vit(name))
        if name in vit.SIZES
        else PretrainedResNet(getattr(resnet, name)())
    )
    if channels != COLOURS:
        take_channels(made, channels)
    return made


def _loaded(found: Source) -> Any:
    if found.is_timm:  # has tensors beside its state, which are made with it
        backbone = _network(found.network, found.channels)
        backbone.load_state_dict(found.backbone)
        return backbone
    with torch.device("meta"):  # no time for initial weights
        backbone = _network(found.network, found.channels)
    backbone.load_state_dict(found.backbone, assign=True)  # strict
    if found.stride_in_1x1:
        stride_as_caffe(backbone)
    return backbone


def _describe(
    backbone: PretrainedBackbone,
    name: str,
    normalization: dict[str, Any],
    method: str,
    notes: list[str],
    levels: Sequence[str] | None,
    size: int | None,
) -> None:
    has_cls = name in vit.SIZES or getattr(backbone, "has_cls", False)
    known = [*backbone.channels, *(["cls"] if has_cls else [])]
    for level in levels or ():
        if level not in known:
            raise unknown("level", str(level), known, f"levels of a {name}")
    backbone.name, backbone.method, backbone.notes = name, method, notes
    backbone.levels = tuple(known if levels is None else levels)
    for held in (backbone.channels, backbone.strides):
        for level in [*held]:
            if level not in backbone.levels:
                del held[level]
    backbone.normalization = normalization
    backbone.transform = ImageTransform(
        tuple(normalization["mean"]),
        tuple(normalization["std"]),
        size=size,
        channel_order=normalization["channel_order"],
    )
