"""timm's networks as backbones: which levels one has, and how it is built.

A network is called ``timm/NAME`` here. It keeps timm's own names of its tensors; what gives none of
its levels (the classifier, the norm before it) is left out.
"""

import contextlib
import importlib.util
import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densessl.core.errors import EnvironmentLacks, InputError, unknown

from .channels import COLOURS, take_channels

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "timm/"
IN_DETECTOR = "timm_network."  # begins the names of its tensors in weights for Detectron2
LEVELS = ("layer1", "layer2", "layer3", "layer4")  # of a pyramid; the last one is layer4
_REGISTERED = rb"@register_model\s+(@.*\s+)*"  # stands above each of its networks
THIRDS = 3  # of its blocks, after which a plain network's levels are taken
# Options by which networks take images of any size: Swin, then vision transformers, then the others
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"strict_img_size": False},
    {"dynamic_img_size": True},
    {},
)


def named(word: str) -> str:
    """The network that an architecture's name or a file's means (``convnext_tiny.fb_in1k``), or ''.

    None is known where timm is not installed.
    """
    name = word.rpartition("/")[2].split(".")[0]
    if not may_know(name):
        return ""
    import timm

    return PREFIX + name if name in timm.list_models() else ""


def may_know(name: str) -> bool:
    """Whether timm is installed and may know a network of that name, which its source registers.

    Read in its source where it is not imported yet, which takes seconds.
    """
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None or "timm" in sys.modules:
        return found is not None
    files = [*(Path(found.origin).parent / "models").rglob("*.py")]
    wanted = _REGISTERED + re.escape(f"def {name}(".encode(errors="replace"))
    return not files or any(re.search(wanted, file.read_bytes()) for file in files)


def is_timm(network: str) -> bool:
    """Whether ``network`` is called as timm's are here: ``timm/convnext_tiny``."""
    return network.startswith(PREFIX)


def title(network: str) -> str:
    """What people call it: 'convnext_tiny (timm)'."""
    return f"{network.removeprefix(PREFIX)} (timm)"


class TimmLevels:
    """What a network of timm's becomes: images ``[B, C, H, W]`` → levels ``[B, C, h, w]`` by name.

    A pyramid (ConvNeXt, Swin, EfficientNet, RegNet, …) has ``layer1`` to ``layer4``, as far as it
    has so many above stride 2; a plain network (a ViT) the maps after each third of its blocks
    behind the final norm, called by the block as ``block4``, and its class token ``cls [B, C]``
    where there is one. ``channels`` and ``strides`` are by level, from the first to the last.
    """

    channels: Mapping[str, int]
    strides: Mapping[str, int]
    modules_of: dict[str, str]  # of each level, the module that gives it
    plain: bool  # all levels have one stride
    blocks_of: dict[str, int]  # of each level, the block that gives it, as timm counts
    has_cls: bool

    if TYPE_CHECKING:
        forward_intermediates: Callable[..., Any]

    def forward(self, images: "Tensor") -> "dict[str, Tensor]":
        options = {"return_prefix_tokens": True} if self.has_cls else {}
        maps = self.forward_intermediates(
            images,
            indices=[*self.blocks_of.values()],
            norm=self.plain,
            output_fmt="NCHW",
            intermediates_only=True,
            **options,
        )
        if not self.has_cls:
            return dict(zip(self.blocks_of, maps, strict=True))
        levels = {name: each for name, (each, _) in zip(self.blocks_of, maps, strict=True)}
        return levels | {"cls": maps[-1][1][:, 0]}


def build(network: str, drop_path: float = 0.0, where: str = "", channels: int = COLOURS) -> Any:
    """``timm/NAME``, freshly initialised by timm, as an ``nn.Module`` that is :class:`TimmLevels`.

    ``drop_path``: the rate of the last block. ``where``: the option, for messages. ``channels``: of
    the images. Raises InputError for a name that timm lacks (with the nearest one) and for a
    network without feature maps, EnvironmentLacks where timm is not installed.
    """
    made = _created(network, drop_path, where)
    _take_channels(made, channels, network)
    levels = _levels(made, f"{where}: {network}" if where else network)
    plain = len({info["reduction"] for _, _, info in levels}) == 1
    # What gives no level is left out: no tensor stays untrained, or is asked of a file.
    made.prune_intermediate_layers(
        [index for _, index, _ in levels], prune_norm=not plain, prune_head=True
    )
    kind = type(made)  # keeps its modules, and so the names of its tensors
    made.__class__ = type(kind.__name__, (TimmLevels, kind), {})
    made.channels = {name: info["num_chs"] for name, _, info in levels}
    made.strides = {name: info["reduction"] for name, _, info in levels}
    made.modules_of = {name: info["module"] for name, _, info in levels}
    made.plain = plain
    made.blocks_of = {name: index for name, index, _ in levels}
    made.has_cls = plain and getattr(made, "cls_token", None) is not None
    return made


@lru_cache
def described(network: str, where: str = "") -> Any:
    """:func:`build` without memory or time for the weights: names, shapes, levels."""
    import torch

    with torch.device("meta"):
        return build(network, where=where)


def check_size(network: str, side: int, where: str) -> None:
    """InputError unless the network takes square images of ``side`` pixels; nothing is computed."""
    import torch

    made = described(network)
    try:
        with torch.no_grad():
            made(torch.zeros(1, 3, side, side, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{where} is {side}, which {network} does not take: {reason}") from None


def expected(network: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, in timm's order."""
    state = described(network).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@lru_cache
def left_out(network: str) -> frozenset[str]:
    """timm's names of what gives none of the levels: classifier, last norm."""
    import timm
    import torch

    with torch.device("meta"):
        whole = timm.create_model(network.removeprefix(PREFIX))
    return frozenset(whole.state_dict()) - expected(network).keys()


def has_batch_norm(network: str) -> bool:
    """Whether the network normalises by batches."""
    return any(name.endswith("running_mean") for name in expected(network))


def first_convolution(network: str) -> str:
    """The name of the first layer, which takes the image."""
    return str(described(network).pretrained_cfg["first_conv"])


def _take_channels(made: "nn.Module", channels: int, network: str) -> None:
    if channels != COLOURS and take_channels(made, channels) is None:
        raise InputError(
            f"{network} does not begin with a convolution of 3 channels, that one of {channels} "
            "could take the place of"
        )


def features(network: str, state: "Mapping[str, Tensor]", images: "Tensor") -> "dict[str, Tensor]":
    """Levels of the network with these tensors, by timm's own ways of giving features.

    Of a pyramid all, by the module that ``features_only`` makes; of a plain network the last one,
    by its ``forward_features``.
    """
    import timm

    made, name = described(network), network.removeprefix(PREFIX)
    if made.plain:
        whole = _created(network, 0.0, "").eval()
        _take_channels(whole, images.shape[1], network)
        whole.load_state_dict(state, strict=False)
        tokens = whole.forward_features(images)[:, getattr(whole, "num_prefix_tokens", 0) :]
        sides = [side // [*made.strides.values()][-1] for side in images.shape[2:]]
        return {[*made.channels][-1]: tokens.transpose(1, 2).unflatten(2, sides)}
    peer = timm.create_model(name, features_only=True, out_indices=[*made.blocks_of.values()])
    _take_channels(peer, images.shape[1], network)
    joined = {child for child, _ in peer.named_children()}
    renamed = {}
    for key, tensor in state.items():
        flat = key.replace(".", "_", 1)  # some of timm's feature networks call stages.0 stages_0
        renamed[flat if flat.split(".")[0] in joined else key] = tensor
    peer.load_state_dict(renamed)
    maps = dict(zip(made.channels, peer.eval()(images), strict=True))
    return {
        level: each if each.shape[1] == made.channels[level] else each.permute(0, 3, 1, 2)
        for level, each in maps.items()
    }


def replace_norms(
    made: "nn.Module", norm: "Callable[[int], nn.Module]", names: Collection[str] | None = None
) -> None:
    """Put ``norm(channels)`` in the place of every batch norm (of those of these ``names``).

    Tensors, their names and epsilon stay; an activation that timm has in the norm comes behind it.
    """
    import torch
    from torch import nn

    for name, old in [*made.named_modules()]:
        if not isinstance(old, nn.BatchNorm2d) or (names is not None and name not in names):
            continue
        new = norm(old.num_features)
        new.eps, new.momentum = old.eps, old.momentum  # type: ignore[assignment]
        with torch.no_grad():
            new.load_state_dict(old.state_dict(), strict=False)  # a frozen norm has no counter
        if hasattr(old, "act"):
            new.drop, new.act = old.drop, old.act
            new.register_forward_hook(_activated)
        parent, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(parent), leaf, new)


def _activated(norm: Any, _: Any, output: "Tensor") -> "Tensor":
    return norm.act(norm.drop(output))


def _created(network: str, drop_path: float, where: str) -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise EnvironmentLacks(
            f"timm is not installed, and {network} needs it; fix it with: "
            "pip install 'densessl[vit]'"
        ) from None
    name = network.removeprefix(PREFIX)
    known = timm.list_models()
    if name not in known:
        raise unknown("network", network, [PREFIX + each for each in known], where)
    given: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    for options in ({**size, **rate} for rate in (given, {}) for size in _ANY_SIZE):
        with contextlib.suppress(TypeError):  # an option that this network lacks
            return timm.create_model(name, pretrained=False, num_classes=0, **options)
    return timm.create_model(name, pretrained=False, num_classes=0)  # raises what was wrong


def _levels(made: Any, where: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Name, timm's index and timm's description of each level."""
    found = getattr(made, "feature_info", None)
    info = list(getattr(found, "info", found) or [])
    if not info or not hasattr(made, "forward_intermediates"):
        raise InputError(
            f"{where} has no feature maps; allowed: networks that timm can build with "
            "features_only=True and whose maps it can tell (forward_intermediates)"
        )
    if len({each["reduction"] for each in info}) == 1:
        chosen = [(len(info) * part) // THIRDS - 1 for part in range(1, THIRDS + 1)]
        return [(f"block{at + 1}", at, info[at]) for at in dict.fromkeys(chosen) if at >= 0]
    coarse = [(at, each) for at, each in enumerate(info) if each["reduction"] > 2][-len(LEVELS) :]
    names = LEVELS[-len(coarse) :]
    return [(name, at, each) for name, (at, each) in zip(names, coarse, strict=True)]
