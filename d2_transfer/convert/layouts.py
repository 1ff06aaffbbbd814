"""The checkpoint layouts that ``convert`` knows: one row each, and what is taken from a file.

A row says in which container of the file the tensors lie, under which prefix, and which of the
names behind that prefix are known not to be the backbone. Everything else there must be the
backbone, exactly; what is not behind the prefix (momentum encoders, queues, heads) is left behind.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from console.errors import InputError, unknown

from . import keys, vit
from .complete import complete, plain

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "RGB"}
WRAPPER = "module."  # DistributedDataParallel puts it before every name; it is taken off first


@dataclass(frozen=True)
class Layout:
    """One way in which a repository writes its checkpoints (prefix and patterns: unwrapped)."""

    name: str
    of: str  # whose files these are, for people
    container: tuple[str, ...] = ()  # keys that lead to the dict of tensors
    prefix: str = ""  # of the backbone's names
    method: str | None = None  # the method, where the layout itself tells it
    tell: str = ""  # a name of the container is like this: sets layouts of one prefix apart
    copy: str = ""  # prefix under which the container holds the same tensors a second time
    not_backbone: str = r"fc\..+"  # names after the prefix that are known and left behind
    marks: tuple[str, ...] = ()  # top-level keys without which it is not this layout
    author: str = ""  # the value that the top-level key 'author' must have
    names: str = "torchvision"  # whose names follow the prefix: torchvision's, detectron2's


STATE, MODEL, TEACHER = ("state_dict",), ("model",), ("teacher",)
NECK = r"encoder_q\.1\."  # the projectors of query encoders that are (ResNet, projectors)
SWAV = {"tell": r"prototypes\..+", "not_backbone": r"(projection_head|prototypes)\..+"}
RESIM_C4 = {"tell": r"encoder_q\.mocodet_\w+\..+", "not_backbone": r"(fc|mocodet_\w+)\..+"}
LAYOUTS = [  # tried in this order
    Layout("densessl", "densessl pretrain", ("backbone",), marks=("method", "normalization")),
    Layout("detectron2", "densessl convert", MODEL, marks=("densessl",), names="detectron2"),
    Layout("pixpro", "PixPro", MODEL, "encoder.", "pixpro"),
    Layout("vicreg", "VICReg, training", MODEL, "backbone.", "vicreg", r"projector\.0\.bias"),
    Layout("setsim", "SetSim", STATE, "encoder_q.0.", "setsim", NECK + r"0\.weight"),
    Layout(
        *("resim_fpn", "ReSim with an FPN", STATE, "encoder_q.", "resim_fpn"),
        tell=r"encoder_q\.fpn_lateral5\.(0\.)?weight",
    ),
    # Without layers of its own a ReSim-C4 file is one of MoCo-v2: only --from can say.
    Layout("resim_c4", "ReSim-C4", STATE, "encoder_q.", "resim_c4", **RESIM_C4),
    Layout("moco_v1", "MoCo-v1", STATE, "encoder_q.", "moco_v1", r"encoder_q\.fc\.weight"),
    Layout("moco_v2", "MoCo-v2", STATE, "encoder_q.", "moco_v2"),
    Layout("simsiam", "SimSiam", STATE, "encoder.", "simsiam"),
    Layout(
        *("densecl", "DenseCL, training", STATE, "backbone.", "densecl"),
        tell=NECK + r"mlp2\.0\.weight",
        copy="encoder_q.0.",
    ),
    Layout(
        *("moco_v2_openselfsup", "OpenSelfSup's MoCo-v2", STATE, "backbone.", "moco_v2"),
        tell=NECK + r"mlp\.0\.weight",
        copy="encoder_q.0.",
    ),
    Layout(
        *("byol_openselfsup", "OpenSelfSup's BYOL", STATE, "backbone.", "byol"),
        tell=r"online_net\.0\.conv1\.weight",
        copy="online_net.0.",
    ),
    Layout("scfs", "SCFS", TEACHER, "backbone.model.", "scfs"),
    Layout(
        *("dino_vit", "DINO with a ViT, training", TEACHER, "backbone.", "dino"),
        tell=r"backbone\.cls_token",
    ),
    Layout("dino", "DINO, training", TEACHER, "backbone.", "dino"),
    Layout("swav", "SwAV, training", STATE, method="swav", **SWAV),
    Layout("swav_released", "SwAV, released", method="swav", **SWAV),
    Layout("densecl_released", "DenseCL, released", STATE, method="densecl", author="DenseCL"),
    Layout("state_dict", "torchvision's names in a training file", STATE),
    Layout(
        *("timm", "timm's ViTs, DINO's released ViTs"),
        tell=r"blocks\.0\.attn\.qkv\.weight",
        not_backbone=r"head\..+",
    ),
    Layout(
        *("torchvision", "torchvision's models, DINO's and VICReg's released backbones"),
        not_backbone=r"(fc|heads)\..+",
    ),
]
BY_NAME = {layout.name: layout for layout in LAYOUTS}


@dataclass
class Source:
    """What a checkpoint gives: its backbone's tensors, and facts about them.

    Names are torchvision's for a ResNet and timm's for a vision transformer.
    """

    layout: str
    network: str  # resnet50, vit_small
    backbone: dict[str, Any]  # name -> float32 tensor, complete and in torchvision's order
    fpn: dict[str, Any]  # Detectron2's name -> tensor; empty without an FPN
    counters_added: int  # num_batches_tracked that the file lacked, set to 0
    method: str
    normalization: dict[str, Any] = field(default_factory=lambda: dict(IMAGENET))
    pretrain: dict[str, Any] = field(default_factory=dict)

    @property
    def is_vit(self) -> bool:
        return self.network in vit.SIZES

    @property
    def depth(self) -> int | None:
        """Of a ResNet."""
        return None if self.is_vit else int(self.network.removeprefix("resnet"))

    @property
    def title(self) -> str:
        """What people call the network: ResNet-50, ViT-S/16."""
        return vit.SIZES[self.network].title if self.is_vit else f"ResNet-{self.depth}"


def recognise(checkpoint: Any, name: str = "auto", where: str = "") -> Source:
    """The backbone in a checkpoint.

    ``name`` is a layout's or 'auto' (the first that fits); a layout that is named need not have the
    names that tell it from others. Raises InputError that lists the file's top-level keys and the
    known layouts when none fits, and the tensors at fault when one is near.
    """
    if name != "auto" and name not in BY_NAME:
        raise unknown("layout", name, ["auto", *BY_NAME], "--from")
    for layout in LAYOUTS if name == "auto" else [BY_NAME[name]]:
        held = _held(checkpoint, layout)
        if held is None or (name == "auto" and not _told_by(held, layout.tell)):
            continue
        state = _after_prefix(held, layout)
        if vit.is_vit(state) or ("conv1.weight" in state and "layer1.0.conv1.weight" in state):
            source = _source(checkpoint, state, layout, where)
            if layout.copy:
                _check_copy(held, state, layout, where)
            return source
    top = list(checkpoint) if isinstance(checkpoint, dict) else [type(checkpoint).__name__]
    shown = ", ".join(map(str, top[:12])) + (f", … ({len(top)} keys)" if len(top) > 12 else "")
    known = "; ".join(f"{row.name} ({row.of})" for row in LAYOUTS)
    asked = "a known layout" if name == "auto" else f"the layout '{name}'"
    raise InputError(
        f"{where} holds no ViT and no ResNet in {asked}. Its top-level keys: {shown}. "
        f"Known layouts: {known}"
    )


def _held(checkpoint: Any, layout: Layout) -> dict[str, Any] | None:
    """The container's tensors by their unwrapped names; None when the file is not like it."""
    if not isinstance(checkpoint, dict) or any(mark not in checkpoint for mark in layout.marks):
        return None
    if layout.author and checkpoint.get("author") != layout.author:
        return None
    state: Any = checkpoint
    for key in layout.container:
        state = state.get(key) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        return None
    if all(name.startswith(WRAPPER) for name in state):
        return {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    return state


def _told_by(held: dict[str, Any], pattern: str) -> bool:
    return not pattern or any(re.fullmatch(pattern, name) for name in held)


def _after_prefix(held: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """What follows the prefix and is not known to be left behind, under the names of a Source."""
    start = len(layout.prefix)
    state = {name[start:]: t for name, t in held.items() if name.startswith(layout.prefix)}
    if layout.names == "detectron2":
        state = _from_detectron2(state)
    state = {name: t for name, t in state.items() if not re.fullmatch(layout.not_backbone, name)}
    return vit.in_timms_names(state)


def _check_copy(held: dict, state: dict[str, Any], layout: Layout, where: str) -> None:
    """Two names of one tensor: files in which they differ were changed after the training."""
    import torch

    for name, tensor in state.items():
        second = held.get(layout.copy + name)
        if isinstance(second, torch.Tensor) and not torch.equal(tensor, second):
            raise InputError(
                f"{where}: {layout.prefix}{name} and {layout.copy}{name} differ, but {layout.of} "
                "writes one tensor under both names; it cannot be told which is the backbone"
            )


def _from_detectron2(state: dict[str, Any]) -> dict[str, Any]:
    import numpy
    import torch

    # The names of the deepest network include those of the others.
    back = {new: old for old, new in keys.detectron2_names(max(keys.DEPTHS)).items()}
    renamed = {}
    for name, value in state.items():
        is_array = isinstance(value, numpy.ndarray | numpy.generic)
        name = back.get(name, re.sub(r"^backbone\.(?=fpn_)", "", name))
        renamed[name] = torch.as_tensor(value) if is_array else value
    return renamed


def _source(checkpoint: dict, state: dict[str, Any], layout: Layout, where: str) -> Source:
    fpn = {name: t for name, t in state.items() if name.startswith("fpn_")}
    if isinstance(checkpoint.get("fpn"), dict):
        fpn |= checkpoint["fpn"]
    backbone = {name: t for name, t in state.items() if name not in fpn}
    read = _vit if vit.is_vit(backbone) else _resnet
    network, backbone, added = read(backbone, where)
    facts = getattr(checkpoint, "densessl", None) or checkpoint.get("densessl") or {}
    source = Source(
        layout=layout.name,
        network=network,
        backbone=backbone,
        fpn=_fpn(fpn, where),
        counters_added=added,
        method=str(checkpoint.get("method") or facts.get("method") or layout.method or "unknown"),
        pretrain=_pretrain(checkpoint) or facts.get("pretrain") or {},
    )
    if isinstance(checkpoint.get("normalization"), dict):
        source.normalization |= checkpoint["normalization"]
    elif facts:
        scaled = {name[6:]: [v / 255 for v in vs] for name, vs in facts["normalization"].items()}
        source.normalization |= scaled | {"channel_order": facts["channel_order"]}
    return source


def _resnet(state: dict[str, Any], where: str) -> tuple[str, dict[str, Any], int]:
    """The network's name, its tensors, and how many counters of batches were added to them."""
    depth = keys.depth_of(state)
    if depth is None:
        raise InputError(
            f"{where}: the network is not a ResNet of depth {', '.join(map(str, keys.DEPTHS))} "
            "(blocks per stage are counted from its names)"
        )
    variants = "a variant (deep stem, wider, ResNeXt) does not fit Detectron2's ResNet"
    wanted = keys.expected(depth)
    return f"resnet{depth}", *complete(state, wanted, f"ResNet-{depth}", variants, where)


def _vit(state: dict[str, Any], where: str) -> tuple[str, dict[str, Any], int]:
    network = vit.network_of(state)
    if network is None:
        known = ", ".join(f"{size.title} ({size.width})" for size in vit.SIZES.values())
        raise InputError(f"{where}: the network is none of {known}, by the width of its cls_token")
    variants = "variants (other patches, image sizes or depths; registers, layer scale) are unknown"
    wanted, title = vit.expected(network), vit.SIZES[network].title
    return network, *complete(state, wanted, title, variants, where)


def _pretrain(checkpoint: dict) -> dict[str, Any]:
    """The facts of our own pretraining; ``epochs`` are those done when the file was written."""
    told = checkpoint.get("pretrain")
    told = dict(told) if isinstance(told, dict) else {}
    done, steps = checkpoint.get("iteration"), told.get("steps")
    if done is not None and steps and done < steps:
        told |= {"epochs": round(told["epochs"] * done / steps, 4), "steps": done}
    return told


def _fpn(state: dict[str, Any], where: str) -> dict[str, Any]:
    renamed = {keys.fpn_to_detectron2(name): (name, tensor) for name, tensor in state.items()}
    if None in renamed or len(renamed) != len(state):
        strange = [name for name in state if keys.fpn_to_detectron2(name) is None] or list(state)
        raise InputError(f"{where}: FPN tensors of unknown or double names: {strange[:6]}")
    return {new: plain(tensor, name, where) for new, (name, tensor) in renamed.items()}
