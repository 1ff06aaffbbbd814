"""Backbones to classify with: torchvision's ResNets, DINO's ViTs, timm's networks."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densessl.core.errors import InputError, unknown
from densessl.weight_files import timm_networks
from densessl.weight_files.channels import COLOURS, renew_first, repeated
from densessl.weight_files.images import AS_STORED
from densessl.weight_files.timm_networks import is_timm
from densessl.weight_files.vit import BLOCKS, IMAGE, PATCH, SIZES

from .. import convert
from ..convert.prove import stride_as_caffe
from ..convert.prove_timm import timms
from ..weights import RANDOM_BN

RESNET_STAGES = ("res2", "res3", "res4", "res5")  # Detectron2's names: torchvision's layer1 … 4
VIT_STAGES = tuple(f"block{number}" for number in range(1, BLOCKS + 1))
VIT_ALL = ("block4", "block8", "block12")  # the depths that SCFS's levels have
LAST_BLOCKS = 4  # whose class tokens DINO's linear classifier sees (ViT-S)
RANDOM_START = "resnet50"
IMAGENET: dict[str, Any] = {  # mean and deviation of 0–255 values, RGB
    "normalization": {
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    },
    "channel_order": "RGB",
    "stride_in_1x1": False,
}


def is_vit(name: str) -> bool:
    """Whether it is one of DINO's, of which every block is a stage."""
    return name in SIZES


def timm_stages(name: str) -> dict[str, str]:
    """The level that is each stage of a network of timm's: of a pyramid as a ResNet's stages."""
    made = timm_networks.described(name)
    if made.plain:
        return {level: level for level in made.channels}
    return {f"res{int(level[-1]) + 1}": level for level in made.channels}


def _known(name: str) -> tuple[str, ...]:
    if is_timm(name):
        return tuple(timm_stages(name))
    return VIT_STAGES if is_vit(name) else RESNET_STAGES


def stages_of(name: str, wanted: Sequence[str], option: str = "KNN.STAGES") -> tuple[str, ...]:
    """The stages of the backbone ``name`` that ``option`` asks for; InputError for others."""
    known = _known(name)
    words = {
        "last": known[-1:],
        "all": VIT_ALL if is_vit(name) else known,
    } | {stage: (stage,) for stage in known}
    for word in wanted:
        if word not in words:
            raise unknown("stage", str(word), words, f"{option} with a {name}")
    return tuple(dict.fromkeys(stage for word in wanted for stage in words[word]))


class FeatureNetwork(nn.Module):
    """Images uint8 ``[B, 3, S, S]`` (RGB; or the channels as stored) → features ``[B, channels]``.

    They are normalised as the weights' facts say. ``stages(images, names)`` gives the features of
    several depths: of a ResNet each stage's global average; of a ViT the class token after each
    block, behind the final LayerNorm that all share (DINO's ``get_intermediate_layers``); of timm's
    networks each level's average, or the class token that one has after its last block.
    ``maps(images, names)`` gives the features of each position instead: a ResNet's feature maps, a
    ViT's patch tokens. They may have any height and width (of a ViT: whole patches).
    """

    pixel_mean: Tensor  # [3, 1, 1], or of as many channels as there are
    pixel_std: Tensor

    def __init__(self, name: str, network: Any, facts: dict[str, Any]):
        super().__init__()
        self.name, self.network, self.bgr = name, network, facts["channel_order"] == "BGR"
        for key, values in facts["normalization"].items():
            self.register_buffer(key, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def last(self) -> str:
        """The last stage, whose features are :meth:`forward`'s."""
        return _known(self.name)[-1]

    @property
    def channels(self) -> int:
        return self.width(self.last)

    def width(self, stage: str) -> int:
        """The channels C of a stage's features."""
        if is_timm(self.name):
            return self.network.channels[timm_stages(self.name)[stage]]
        if is_vit(self.name):
            return SIZES[self.name].width
        block = getattr(self.network, f"layer{RESNET_STAGES.index(stage) + 1}")[-1]
        return (block.conv3 if hasattr(block, "conv3") else block.conv2).out_channels

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images, (self.last,))[self.last]

    def stages(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        if is_timm(self.name):
            levels = self.network(self._normalised(images))
            found = {name: levels[timm_stages(self.name)[name]].mean((2, 3)) for name in names}
            if "cls" in levels and self.last in found:
                found[self.last] = levels["cls"]
            return found
        if is_vit(self.name):
            blocks = [VIT_STAGES.index(name) for name in names]
            tokens = self._tokens(images, blocks)
            return {name: tokens[block][1][:, 0] for name, block in zip(names, blocks, strict=True)}
        return {name: each.mean((2, 3)) for name, each in self._resnet_maps(images, names).items()}

    def maps(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The features of each position at some stages: ``[B, C, h, w]``, as :meth:`grid` says."""
        if is_timm(self.name):
            levels = self.network(self._normalised(images))
            return {name: levels[timm_stages(self.name)[name]] for name in names}
        if not is_vit(self.name):
            return self._resnet_maps(images, names)
        blocks = [VIT_STAGES.index(name) for name in names]
        tokens = self._tokens(images, blocks)
        grid = self.grid(self.last, images.shape[2:])
        return {
            name: tokens[block][0].transpose(1, 2).unflatten(2, grid)
            for name, block in zip(names, blocks, strict=True)
        }

    def grid(self, stage: str, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of a stage's map of images of ``size`` (height, width)."""
        if is_timm(self.name):
            stride = self.network.strides[timm_stages(self.name)[stage]]
        else:
            stride = PATCH if is_vit(self.name) else 4 << RESNET_STAGES.index(stage)
        height, width = (-(-edge // stride) for edge in size)
        return height, width

    def _resnet_maps(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        found, network = {}, self.network
        x = network.maxpool(network.relu(network.bn1(network.conv1(self._normalised(images)))))
        for number, stage in enumerate(RESNET_STAGES, 1):
            x = getattr(network, f"layer{number}")(x)
            if stage in names:
                found[stage] = x
            if len(found) == len(set(names)):
                break
        return {name: found[name] for name in names}

    def for_linear(self, images: Tensor, vit_features: str) -> Tensor:
        """What a linear classifier sees (LINEAR.VIT_FEATURES): ``[B, linear_channels(…)]``."""
        if not is_vit(self.name) or vit_features == "last":
            return self(images)
        if self.name == "vit_base":
            patches, prefix = self._tokens(images, [BLOCKS - 1])[BLOCKS - 1]
            return torch.cat([prefix[:, 0], patches.mean(1)], 1)
        names = VIT_STAGES[-LAST_BLOCKS:]
        return torch.cat(list(self.stages(images, names).values()), 1)

    def linear_channels(self, vit_features: str) -> int:
        if not is_vit(self.name) or vit_features == "last":
            return self.channels
        return self.channels * (2 if self.name == "vit_base" else LAST_BLOCKS)

    def _normalised(self, images: Tensor) -> Tensor:
        images = (images.flip(1) if self.bgr else images).float()
        return (images - self.pixel_mean) / self.pixel_std

    def _tokens(self, images: Tensor, blocks: list[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Patch and class tokens behind the final LayerNorm after some blocks, ``[B, N, C]``."""
        found = self.network.forward_intermediates(
            self._normalised(images),
            indices=sorted(set(blocks)),
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return dict(zip(sorted(set(blocks)), found, strict=True))


def network_of(wanted: str, facts: dict[str, Any] | None) -> str:
    """The backbone's name: the weights'; of a random start MODEL.BACKBONE, else resnet50.

    Raises InputError where MODEL.BACKBONE is another one than the weights'.
    """
    if facts is None:
        return RANDOM_START if wanted == "auto" else wanted
    if wanted not in ("auto", facts["network"]):
        raise InputError(
            f"MODEL.BACKBONE is {wanted}, but the weights are a {facts['network']}'s; allowed: "
            f"auto, {facts['network']}"
        )
    return facts["network"]


def build_backbone(
    wanted: str,
    weights: str | os.PathLike,
    size: int | Sequence[int],
    seed: int,
    channels: int = COLOURS,
) -> FeatureNetwork:
    """The backbone with the tensors of a converted file; without one, a random start by ``seed``.

    ``size``: of its images, an edge or (height, width). ``weights`` may be RANDOM_BN: a random
    start, whose batch norm then gets the data's statistics (:mod:`.controls`). ``channels``: of the
    images, as a file of weights has them, too. Raises InputError for a size that a ViT cannot cut
    into patches and for a file that does not fit, EnvironmentLacks where a ViT's timm is not
    installed.
    """
    start = str(weights) in ("", RANDOM_BN)
    held = None if start else convert.read_checkpoint(weights)
    facts = held.densessl if held is not None else _of_random(channels)
    name = network_of(wanted, facts if held is not None else None)
    network = _network(name, size, seed, channels)
    if facts.get("stride_in_1x1"):  # of a ResNet
        stride_as_caffe(network)
    if held is not None:
        try:
            network.load_state_dict(dict(held))  # strict
        except RuntimeError as error:
            raise InputError(f"{weights} does not fit a {name}: {error}") from None
    return FeatureNetwork(name, network, facts)


def check_size(name: str, size: int | Sequence[int]) -> None:
    """InputError for a size that a ViT cannot cut into its patches, or timm's network not take."""
    for edge in (size,) if isinstance(size, int) else size:
        if is_timm(name):
            timm_networks.check_size(name, edge, "INPUT.SIZE")
        if is_vit(name) and edge % PATCH:
            near = f"{edge // PATCH * PATCH} or {edge // PATCH * PATCH + PATCH}"
            raise InputError(
                f"INPUT.SIZE is {size}; {name} has patches of {PATCH} pixels; nearest: {near}"
            )


def _of_random(channels: int) -> dict[str, Any]:
    """How a random start takes images: by ImageNet's mean and deviation, repeated."""
    if channels == COLOURS:
        return IMAGENET
    normal = IMAGENET["normalization"].items()
    repeats = {key: repeated(values, channels) for key, values in normal}
    return {"normalization": repeats, "channel_order": AS_STORED}


def _network(name: str, size: int | Sequence[int], seed: int, channels: int = COLOURS) -> nn.Module:
    check_size(name, size)
    torch.manual_seed(seed)
    if is_timm(name):
        return timm_networks.build(name, where="MODEL.BACKBONE", channels=channels)
    if is_vit(name):
        build = timms(f"vision_transformer.{SIZES[name].timm}")
        return build(num_classes=0, dynamic_img_size=size != IMAGE, in_chans=channels)
    from torchvision.models import resnet

    network = getattr(resnet, name)()
    renew_first(network, channels)
    network.fc = nn.Identity()
    return network
