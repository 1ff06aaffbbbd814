"""What is taken from a checkpoint: its layout, one of its networks, and the facts it tells."""

import os
import re
from dataclasses import dataclass, field, replace
from typing import Any

from densessl.core.errors import InputError, unknown

from . import facts as facts_of
from . import images as images_of
from . import keys, origin, reading, renaming, timm_networks, vit
from .channels import channels_of
from .complete import complete, plain
from .images import ImageFacts
from .layouts import BRANCHES, BY_NAME, HEADS, LAYOUTS, WRAPPER, KeyLayout
from .unknown import explain, networks_in
from .without_torch import in_torch, library_of

# Where a network of timm's lies: in files of ours, in training files, alone
TIMMS = ("densessl", "detectron2", "state_dict", "model", "torchvision")


def first_layer(network: str) -> str:
    """The name of the layer that takes the image; ``network`` as :attr:`Source.network`."""
    if timm_networks.is_timm(network):
        return timm_networks.first_convolution(network)
    return "patch_embed.proj" if network in vit.SIZES else "conv1"


@dataclass
class Source:
    """What a checkpoint gives: its backbone's tensors, and facts about them.

    Names are torchvision's for a ResNet and timm's for all else.
    """

    layout: str
    network: str  # resnet50, vit_small, timm/convnext_tiny
    backbone: dict[str, Any]  # name -> float32 tensor, complete and in torchvision's order
    fpn: dict[str, Any]  # Detectron2's name -> tensor; empty without an FPN
    counters_added: int  # num_batches_tracked that the file lacked, set to 0
    method: str
    images: ImageFacts  # how they are normalised, and where the network has its stride
    pretrain: dict[str, Any] = field(default_factory=dict)
    branch: str = ""  # which of the file's two networks this is; empty where there is one
    other: str = ""  # the branch that was not taken
    place: str = ""  # where the backbone lies: "state_dict:module.encoder_q."
    other_place: str = ""
    left: dict[str, int] = field(default_factory=dict)  # what is left behind: names, how many
    notes: list[str] = field(default_factory=list)  # what people should know about the tensors

    @property
    def normalization(self) -> dict[str, Any]:
        """Mean and std of 0–1 values, channel_order."""
        return self.images.normalization

    @property
    def stride_in_1x1(self) -> bool:
        return self.images.stride_in_1x1

    @property
    def is_vit(self) -> bool:
        return self.network in vit.SIZES

    @property
    def is_timm(self) -> bool:
        """Whether it is called as timm calls it: neither a ResNet nor one of DINO's ViTs."""
        return timm_networks.is_timm(self.network)

    @property
    def channels(self) -> int:
        """Of the images that it takes."""
        return channels_of(self.backbone, first_layer(self.network))

    @property
    def resnet(self) -> keys.ResNetShape | None:
        """Its depth and groups, of a ResNet."""
        return keys.NETWORKS.get(self.network)

    @property
    def depth(self) -> int | None:
        """Of a ResNet."""
        return self.resnet.depth if self.resnet else None

    @property
    def title(self) -> str:
        """What people call the network: ResNet-50, ViT-S/16, convnext_tiny (timm)."""
        if self.is_timm:
            return timm_networks.title(self.network)
        return vit.SIZES[self.network].title if self.is_vit else keys.NETWORKS[self.network].title

    @property
    def summary(self) -> str:
        """The layout and the branch in a few words."""
        of = BY_NAME[self.layout].of if self.layout in BY_NAME else "named by --from"
        branch = f", {self.branch} branch" if self.branch else ""
        return f"{of} ({self.layout} layout){branch}"


def from_file(
    path: str | os.PathLike, name: str = "auto", branch: str | None = None
) -> tuple[Any, Source]:
    """What a file holds (of ``reading.read_checkpoint``), and the backbone in it.

    The one door through which foreign weights come in; ``name`` and ``branch`` as for recognise.
    """
    held = reading.read_checkpoint(path)
    return held, recognise(held, name, str(path), branch)


def recognise(
    checkpoint: Any, name: str = "auto", where: str = "", branch: str | None = None
) -> Source:
    """The backbone in a checkpoint; ``where`` is its path, or what messages call it.

    ``name`` is a layout's, 'auto' (the first that fits) or 'CONTAINER:PREFIX' (keys that lead to
    the tensors, with '/' between; then what comes before the backbone's names), or a network of
    timm's (``timm/convnext_tiny``) in a state dict of its names; a layout that is
    named need not have the names that tell it from others. ``branch``: of a file with two networks
    another one than the layout's own. Raises InputError that says what the file looks like when
    none fits, and the tensors at fault when one is near.
    """
    found = recognise_in_place(checkpoint, name, where, branch)
    return replace(found, backbone=in_torch(found.backbone), fpn=in_torch(found.fpn))


def recognise_in_place(
    checkpoint: Any, name: str = "auto", where: str = "", branch: str | None = None
) -> Source:
    """:func:`recognise` of tensors of either library, which stay of it."""
    named_network = name if timm_networks.is_timm(name) else ""
    if name != "auto" and ":" not in name and name not in BY_NAME and not named_network:
        raise unknown("layout", name, ["auto", *BY_NAME], "--from")
    if own := facts_of.own_backbone(checkpoint):
        raise InputError(
            f"{where}: its backbone is your own ({own}); torchvision's ResNets and timm's networks "
            "alone can be converted. "
            "torch.load(FILE, weights_only=True)['backbone'] has its tensors"
        )
    checkpoint, found = renaming.unwrapped(checkpoint), origin.of(checkpoint, where)
    if network := named_network or facts_of.timm_network(checkpoint):
        return _timms(checkpoint, network, found, where)
    if isinstance(checkpoint, dict) and not facts_of.is_ours(checkpoint):
        found.refuse_variants(where)
    for layout in LAYOUTS if name == "auto" else [named(name)]:
        held = _held(checkpoint, layout, forced=name != "auto")
        if held is None or (name == "auto" and not _has_key(held, layout.tell)):
            continue
        if not _has_network(_after_prefix(held, layout)):
            continue
        if layout.copy:
            _check_copy(held, layout, where)
        try:
            return _source(checkpoint, layout, found, branch, where, forced=name != "auto")
        except InputError:  # by its names a ViT, perhaps, but none of DINO's
            network = _named_by_words(checkpoint, found) if name == "auto" else ""
            if not network:
                raise
            return _timms(checkpoint, network, found, where)
    if network := _named_by_words(checkpoint, found) if name == "auto" else "":
        return _timms(checkpoint, network, found, where)
    raise InputError(explain(checkpoint, where, "" if name == "auto" else name))


def named(name: str) -> KeyLayout:
    """The layout of that name, or the one that 'CONTAINER:PREFIX' describes."""
    if ":" not in name:
        return BY_NAME[name]
    container, prefix = name.split(":", 1)
    keys_to_it = tuple(container.split("/")) if container else ()
    prefix = renaming.without_inserted(prefix)
    return KeyLayout(name, "named by --from", prefix, container=keys_to_it, not_backbone=HEADS)


def _held(checkpoint: Any, layout: KeyLayout, forced: bool) -> dict[str, Any] | None:
    """The container's tensors by their unwrapped names; None when the file is not like it."""
    if not isinstance(checkpoint, dict) or any(mark not in checkpoint for mark in layout.marks):
        return None
    if layout.author and checkpoint.get("author") != layout.author:
        return None
    state: Any = checkpoint
    for key in layout.container:
        state = state.get(key) if isinstance(state, dict) else None
    if state is None and forced and all(hasattr(value, "shape") for value in checkpoint.values()):
        state = checkpoint  # the state dict itself was saved
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        return None
    if _is_wrapped(state) and not layout.prefix.startswith(WRAPPER):
        return {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    return state


def _is_wrapped(state: dict[str, Any]) -> bool:
    return bool(state) and all(name.startswith(WRAPPER) for name in state)


def _has_key(held: dict[str, Any], pattern: str) -> bool:
    return not pattern or any(re.fullmatch(pattern, name) for name in held)


def _after_prefix(held: dict[str, Any], layout: KeyLayout) -> dict[str, Any]:
    """What follows the prefix and is not known to be left behind, under the names of a Source."""
    start = len(layout.prefix)
    state = {name[start:]: t for name, t in held.items() if name.startswith(layout.prefix)}
    if layout.names != "torchvision":
        state = renaming.in_torchvisions(state, layout.names)
    state = {name: t for name, t in state.items() if not re.fullmatch(layout.not_backbone, name)}
    return vit.in_timms_names(keys.from_sequential(state))


def _has_network(state: dict[str, Any]) -> bool:
    return vit.is_vit(state) or ("conv1.weight" in state and "layer1.0.conv1.weight" in state)


def _check_copy(held: dict, layout: KeyLayout, where: str) -> None:
    """Two names of one tensor: files in which they differ were changed after the training."""
    for name, tensor in held.items():
        second = held.get(layout.copy + name.removeprefix(layout.prefix))
        library = library_of(tensor)
        if not name.startswith(layout.prefix) or not library or not library_of(second):
            continue
        if not library.equal(tensor, second):
            raise InputError(
                f"{where}: {name} and {layout.copy}{name.removeprefix(layout.prefix)} differ, but "
                f"{layout.of} writes one tensor under both names; it cannot be told which is the "
                "backbone"
            )


# From the layout to the source ------------------------------------------------------------------


def _source(
    checkpoint: dict,
    layout: KeyLayout,
    found: origin.Origin,
    branch: str | None,
    where: str,
    forced: bool,
) -> Source:
    ours, theirs = layout, _other(layout)
    if theirs is not None:
        beside = _held(checkpoint, theirs, forced=False)
        if beside is None or not _has_network(_after_prefix(beside, theirs)):
            theirs = None
    if branch:
        ours, theirs = _chosen(checkpoint, ours, theirs, branch, where)
    held = _held(checkpoint, ours, forced) or {}
    state = _after_prefix(held, ours)
    fpn = {name: t for name, t in state.items() if name.startswith("fpn_")}
    if isinstance(checkpoint.get("fpn"), dict):
        fpn |= checkpoint["fpn"]
    backbone = {name: t for name, t in state.items() if not name.startswith("fpn_")}
    notes: list[str] = []
    network, backbone, added = (_vit if vit.is_vit(backbone) else _resnet)(backbone, where, notes)
    if layout.name == "moco_v3" and network == "vit_small":
        raise InputError(
            f"{where}: MoCo-v3's ViT-S has 12 heads, timm's and DINO's 6, and the tensors fit both;"
            " the networks that are known here would compute other features"
        )
    facts = facts_of.ours(checkpoint)
    channels = channels_of(backbone, first_layer(network))
    images = images_of.read(checkpoint, facts, layout, found, notes, channels)
    if layout.alike:
        notes.append(f"the same names are also {layout.alike}")
    return Source(
        layout=layout.name,
        network=network,
        backbone=backbone,
        fpn=_fpn(fpn, where),
        counters_added=added,
        method=facts_of.method(checkpoint, facts, layout),
        images=images,
        pretrain=facts_of.pretrain(checkpoint, facts),
        branch=ours.branch if theirs else facts.get("branch", ""),
        other=theirs.branch if theirs else "",
        place=_place(checkpoint, ours),
        other_place=_place(checkpoint, theirs) if theirs else "",
        left=_left_behind(held, ours),
        notes=notes,
    )


def _other(layout: KeyLayout) -> KeyLayout | None:
    if layout.other is None:
        return None
    branch, container, prefix = layout.other
    return replace(layout, branch=branch, container=container, prefix=prefix, author="")


def _chosen(
    checkpoint: dict, ours: KeyLayout, theirs: KeyLayout | None, branch: str, where: str
) -> tuple[KeyLayout, KeyLayout | None]:
    """The layout of the branch that was asked for, and the other one."""
    known = [name for side in BRANCHES for name in side]
    if branch not in known:
        raise unknown("branch", branch, known, "--branch")
    if theirs is None:
        here = _place(checkpoint, ours)
        places = [f"{container}:{prefix}" for _, container, prefix in networks_in(checkpoint)]
        others = [f"--from {place}" for place in places if place != here]
        raise InputError(
            f"{where} holds one network in the {ours.name} layout: --branch {branch} chooses "
            f"between two{'; others in it: ' if others else ''}{', '.join(others)}"
        )
    side = next(side for side in BRANCHES if branch in side)
    return (ours, theirs) if ours.branch in side else (theirs, ours)


def _place(checkpoint: dict, layout: KeyLayout) -> str:
    """Where a layout's backbone lies in the file, by the file's own names."""
    state: Any = checkpoint
    for key in layout.container:
        state = state.get(key, state)
    wrapper = WRAPPER if _is_wrapped(state) and not layout.prefix.startswith(WRAPPER) else ""
    return f"{'/'.join(layout.container)}:{wrapper}{layout.prefix}"


def _left_behind(held: dict[str, Any], layout: KeyLayout) -> dict[str, int]:
    """How many tensors lie beside the backbone, by the first part of their names."""
    left: dict[str, int] = {}
    for name in held:
        inside = name.startswith(layout.prefix)
        rest = name[len(layout.prefix) :] if inside else name
        named = inside and renaming.belongs(rest, layout.names)
        if named and not re.fullmatch(layout.not_backbone, rest):
            continue
        group = (layout.prefix if inside else "") + rest.split(".")[0]
        left[group] = left.get(group, 0) + 1
    return left


# timm's networks --------------------------------------------------------------------------------


def _timms(checkpoint: Any, network: str, found: origin.Origin, where: str) -> Source:
    """A network of timm's, which is known by name, in a file of ours or in a state dict."""
    wanted, beside = timm_networks.expected(network), timm_networks.left_out(network)
    layout, state = _timms_state(checkpoint, wanted)
    if layout is None:
        raise InputError(f"{where} holds no tensors of {network}, by timm's names")
    facts = facts_of.ours(checkpoint)
    notes: list[str] = []
    backbone, added = complete(
        {name: tensor for name, tensor in state.items() if name not in beside},
        wanted,
        first_layer(network),
        timm_networks.title(network),
        "another network, or one with other options, does not fit",
        where,
        notes,
    )
    return Source(
        layout=layout.name,
        network=network,
        backbone=backbone,
        fpn={},
        counters_added=added,
        method=facts_of.method(checkpoint, facts, layout),
        images=images_of.read(
            checkpoint, facts, layout, found, notes, channels_of(backbone, first_layer(network))
        ),
        pretrain=facts_of.pretrain(checkpoint, facts),
        branch=facts.get("branch", ""),
        place=_place(checkpoint, layout),
        left={name: 1 for name in state if name in beside},
        notes=notes,
    )


def _timms_state(
    checkpoint: Any, wanted: dict[str, Any]
) -> tuple[KeyLayout | None, dict[str, Any]]:
    """The first layout in which there are ``wanted`` names, and its tensors; None where none is."""
    for layout in (BY_NAME[name] for name in TIMMS):
        held = _held(checkpoint, layout, forced=False)
        if held is None:
            continue
        if layout.name == "detectron2":
            held = renaming.as_tensors(held, timm_networks.IN_DETECTOR)
        if wanted.keys() & held.keys():
            return layout, held
    return None, {}


def _named_by_words(checkpoint: Any, found: origin.Origin) -> str:
    """The network of timm's that the file says it holds, and that has its names; else ''."""
    for word, _ in found.words:
        network = timm_networks.named(word)
        if network and _timms_state(checkpoint, timm_networks.expected(network))[0]:
            return network
    return ""


# The networks and the facts ---------------------------------------------------------------------


def _resnet(state: dict[str, Any], where: str, notes: list[str]) -> tuple[str, dict, int]:
    """The network's name, its tensors, and how many counters of batches were added to them."""
    network = keys.network_of(state)
    if network is None:
        counted = ", ".join(map(str, keys.blocks_of(state)))
        raise InputError(
            f"{where}: the network is not a ResNet of depth {', '.join(map(str, keys.DEPTHS))}: by "
            f"its names layer1 to layer4 have {counted} blocks (ResNet-50: 3, 4, 6, 3)"
        )
    variants = "a variant (deep or CIFAR stem, other widths, SE) does not fit Detectron2's ResNet"
    resnet = keys.NETWORKS[network]
    wanted = keys.expected(resnet.depth, resnet.groups, resnet.width)
    first = first_layer(network)
    return network, *complete(state, wanted, first, resnet.title, variants, where, notes)


def _vit(state: dict[str, Any], where: str, notes: list[str]) -> tuple[str, dict, int]:
    network = vit.network_of(state)
    if network is None:
        known = ", ".join(f"{size.title} ({size.width})" for size in vit.SIZES.values())
        raise InputError(f"{where}: the network is none of {known}, by the width of its cls_token")
    variants = "variants (other patches, image sizes or depths; registers, layer scale) are unknown"
    wanted, title = vit.expected(network), vit.SIZES[network].title
    first = first_layer(network)
    return network, *complete(state, wanted, first, title, variants, where, notes)


def _fpn(state: dict[str, Any], where: str) -> dict[str, Any]:
    renamed = {keys.fpn_to_detectron2(name): (name, tensor) for name, tensor in state.items()}
    if None in renamed or len(renamed) != len(state):
        strange = [name for name in state if keys.fpn_to_detectron2(name) is None] or list(state)
        raise InputError(f"{where}: FPN tensors of unknown or double names: {strange[:6]}")
    return {str(new): plain(tensor, name, where) for new, (name, tensor) in renamed.items()}
