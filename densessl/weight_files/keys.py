"""Names of a ResNet's tensors: torchvision's and Detectron2's, by anchored patterns.

A tensor counts as part of the backbone only if torchvision's own network of that depth has it, by
name and shape; nothing is matched by a piece of its name.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

DEPTHS = (18, 34, 50, 101, 152)
BLOCKS: dict[tuple, int] = {
    (2, 2, 2, 2, False): 18,
    (3, 4, 6, 3, False): 34,
    (3, 4, 6, 3, True): 50,
    (3, 4, 23, 3, True): 101,
    (3, 8, 36, 3, True): 152,
}  # blocks in layer1..4, and whether they are bottlenecks (have a third convolution)


@dataclass(frozen=True)
class ResNetShape:
    """One of torchvision's: in a bottleneck, the 3x3 has so many groups of so many channels."""

    title: str
    depth: int
    groups: int = 1
    width: int = 64


NETWORKS = {f"resnet{depth}": ResNetShape(f"ResNet-{depth}", depth) for depth in DEPTHS} | {
    "wide_resnet50_2": ResNetShape("Wide ResNet-50-2", 50, width=128),
    "wide_resnet101_2": ResNetShape("Wide ResNet-101-2", 101, width=128),
    "resnext50_32x4d": ResNetShape("ResNeXt-50 32x4d", 50, 32, 4),
    "resnext101_32x8d": ResNetShape("ResNeXt-101 32x8d", 101, 32, 8),
    "resnext101_64x4d": ResNetShape("ResNeXt-101 64x4d", 101, 64, 4),
}

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_RULES = [
    (r"conv1\.weight", r"stem.conv1.weight"),
    (rf"bn1\.{_NORM}", r"stem.conv1.norm.\1"),
    (r"layer([1-4])\.(\d+)\.conv([123])\.weight", r"res{}.\2.conv\3.weight"),
    (rf"layer([1-4])\.(\d+)\.bn([123])\.{_NORM}", r"res{}.\2.conv\3.norm.\4"),
    (r"layer([1-4])\.(\d+)\.downsample\.0\.weight", r"res{}.\2.shortcut.weight"),
    (rf"layer([1-4])\.(\d+)\.downsample\.1\.{_NORM}", r"res{}.\2.shortcut.norm.\3"),
]
# An FPN's convolution is `fpn_lateral4`, or, with a norm, a Sequential of `.0` and `.1`.
_FPN_RULES = [
    (r"fpn_(lateral|output)([2-5])\.(?:0\.)?(weight|bias)", r"backbone.fpn_\1\2.\3"),
    (rf"fpn_(lateral|output)([2-5])\.(?:1|norm)\.{_NORM}", r"backbone.fpn_\1\2.norm.\3"),
]
COUNTER = "num_batches_tracked"  # files of old torch versions lack it
# nn.Sequential(*resnet.children()) numbers its parts: lightly's tutorials
_SEQUENTIAL_RULES = [
    (r"0\.weight", r"conv1.weight"),
    (rf"1\.{_NORM}", r"bn1.\1"),
    (r"([4-7])\.(\d+\..+)", r"layer{}.\2"),
]
# Where a Detectron2 detector has its backbone: alone, in an FPN, res5 of a C4 head
_DETECTOR = r"(?:backbone\.bottom_up\.|backbone\.|roi_heads\.)?((?:stem|res[2-5]\.\d+)\..+)"


def to_detectron2(name: str) -> str | None:
    """Detectron2's name of a torchvision ResNet tensor; None for a name that is not one."""
    for pattern, replacement in _RULES:
        if match := re.fullmatch(pattern, name):
            stage = int(match[1]) + 1 if name.startswith("layer") else 0
            return match.expand(replacement).format(stage)
    return None


def fpn_to_detectron2(name: str) -> str | None:
    """Detectron2's name (``backbone.fpn_lateral4.weight``) of an FPN tensor; None for no such."""
    for pattern, replacement in _FPN_RULES:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return None


def from_sequential(state: dict[str, Any]) -> dict[str, Any]:
    """The same tensors, the numbers of a Sequential ResNet's parts replaced by their names."""
    if "0.weight" not in state or "4.0.conv1.weight" not in state:
        return state
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in _SEQUENTIAL_RULES:
            if match := re.fullmatch(pattern, name):
                layer = int(match[1]) - 3 if match[0][0] in "4567" else 0
                name = match.expand(replacement).format(layer)
                break
        renamed[name] = tensor
    return renamed


def in_detector(name: str) -> str | None:
    """The backbone's or FPN's name (``res4.0.conv1.weight``) of a detector's tensor, else None."""
    if match := re.fullmatch(_DETECTOR, name):
        return match[1]
    return name if fpn_to_detectron2(name.removeprefix("backbone.")) == name else None


@lru_cache
def expected(depth: int, groups: int = 1, base: int = 64) -> dict[str, tuple[int, ...]]:
    """Name and shape of every backbone tensor of torchvision's ResNet (318 for depth 50), in its
    order; computed without torchvision, which is slow to import. ``groups`` and ``base``: of
    ResNeXts and wide ResNets, as :class:`ResNetShape`'s."""
    *stages, bottleneck = next(key for key, known in BLOCKS.items() if known == depth)
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(conv: str, norm: str, *shape: int) -> None:
        shapes[f"{conv}.weight"] = shape
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = shape[:1]
        shapes[f"{norm}.{COUNTER}"] = ()

    layer("conv1", "bn1", 64, 3, 7, 7)
    channels = 64
    for stage, blocks in enumerate(stages, 1):
        width = groups * base << stage - 1
        out = 128 << stage if bottleneck else width
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            side = 1 if bottleneck else 3
            layer(f"{at}.conv1", f"{at}.bn1", width, channels, side, side)
            layer(f"{at}.conv2", f"{at}.bn2", width, width // groups, 3, 3)
            if bottleneck:
                layer(f"{at}.conv3", f"{at}.bn3", out, width, 1, 1)
            if channels != out:
                layer(f"{at}.downsample.0", f"{at}.downsample.1", out, channels, 1, 1)
            channels = out
    return shapes


@lru_cache
def detectron2_names(depth: int) -> dict[str, str]:
    """Detectron2's name of every backbone tensor, by torchvision's, one to one."""
    return {name: str(to_detectron2(name)) for name in expected(depth)}


def depth_of(names) -> int | None:
    """The depth of the ResNet with these torchvision names; None when it is not one of ours."""
    return BLOCKS.get((*blocks_of(names), "layer1.0.conv3.weight" in names))


def network_of(state: dict[str, Any]) -> str | None:
    """The name of the ResNet with these tensors (torchvision's names), by its blocks and groups."""
    depth = depth_of(state)
    shape = tuple(getattr(state.get("layer1.0.conv2.weight"), "shape", ()))
    for name, each in NETWORKS.items():
        width = each.groups * each.width
        if each.depth == depth and shape[:2] == (width, width // each.groups):
            return name
    return None if depth is None else f"resnet{depth}"


def blocks_of(names) -> tuple[int, ...]:
    """How many blocks the stages layer1 to layer4 have, by these torchvision names."""
    found = [re.match(r"layer([1-4])\.(\d+)\.conv1\.weight$", name) for name in names]
    blocks = [(int(match[1]), int(match[2])) for match in found if match]
    return tuple(
        1 + max((block for s, block in blocks if s == stage), default=-1) for stage in range(1, 5)
    )
