"""What a checkpoint of no known layout looks like, in one message."""

import re
from typing import Any

from . import keys, vit
from .layouts import LAYOUTS

DEPTH = 4  # of dicts within dicts that are searched
# Names (of a whole state dict, by their ends) that tell a network which is not one of ours.
_STRANGERS = [
    (r"(.*\.)?stages\.\d\.blocks\.\d\.conv_dw\.weight", "a ConvNeXt (timm's names)"),
    (r"(.*\.)?conv1\.0\.weight", "a ResNet with a deep stem (resnet50d, v1c)"),
    (r"(.*\.)?stem\.0\.weight", "a ResNet with a deep stem (OpenMMLab's v1c, v1d)"),
    (r"(.*\.)?(stages\.\d\.\d\.dwconv|features\.1\.0\.block\.0)\.weight", "a ConvNeXt"),
    (r"(.*\.)?layers\.\d\.blocks\.\d\.attn\.relative_position_bias_table", "a Swin transformer"),
    (r"(.*\.)?layers\.\d+\.attn\.qkv\.weight", "a ViT under OpenMMLab's names"),
    (r"(.*\.)?stages\.\d\.blocks\.\d\.conv1\.conv\.weight", "a RegNet"),
    (r"(.*\.)?features\.0\.weight", "a VGG or AlexNet"),
    (r"conv1_w|res2_0_branch2a_w", "a network under Caffe2's names"),
    (r"(.*\.)?embeddings\.cls_token", "a ViT under Hugging Face's names"),
]


def networks_in(checkpoint: Any) -> list[tuple[str, str, str]]:
    """Every ResNet and ViT by its names: title, container ('a/b') and prefix of each."""
    found = []
    for path, state in _dicts(checkpoint):
        for name in state:
            if not isinstance(name, str):
                continue
            for end, other, kind in (
                ("conv1.weight", "layer1.0.conv1.weight", "ResNet"),
                ("0.weight", "4.0.conv1.weight", "ResNet"),
                ("cls_token", "blocks.0.attn.qkv.weight", "ViT"),
            ):
                prefix = name.removesuffix(end)
                if name == prefix + end and prefix + other in state:
                    found.append((_title(kind, state, prefix), "/".join(path), prefix))
    return found


def explain(checkpoint: Any, where: str, asked: str) -> str:
    """Why nothing was taken from ``checkpoint``; ``asked``: the layout that people named, or ''."""
    if not isinstance(checkpoint, dict):
        return f"{where} holds a {type(checkpoint).__name__}, not a dict of tensors"
    if not checkpoint:
        return f"{where} holds nothing"
    networks = networks_in(checkpoint)
    layout = f"the layout '{asked}'" if asked else "a known layout"
    message = f"{where} holds no ViT and no ResNet in {layout}"
    if networks:
        places = [
            f"--from {container}:{prefix}  ({title})" for title, container, prefix in networks
        ]
        twice = any(prefix.startswith("module.module.") for _, _, prefix in networks)
        hint = "; its names were wrapped twice" if twice else ""
        return (
            f"{message}, but by the names there is one{hint}. Take it with: {' or '.join(places)}"
        )
    if stranger := _stranger(checkpoint):
        return (
            f"{message}; its names are those of {stranger}. If timm builds it, name it so: "
            "--from timm/NAME"
        )
    if _only_optimizer(checkpoint):
        return f"{message}: it holds the state of an optimizer and no weights"
    top = list(checkpoint)
    shown = ", ".join(map(str, top[:12])) + (f", … ({len(top)} keys)" if len(top) > 12 else "")
    known = "; ".join(f"{row.name} ({row.of})" for row in LAYOUTS)
    return f"{message}. Its top-level keys: {shown}. Known layouts: {known}"


def _dicts(held: Any, path: tuple[str, ...] = (), seen: set[int] | None = None):
    """Every dict within dicts whose keys are text without '/' or ':', and the keys to it."""
    seen = set() if seen is None else seen
    if not isinstance(held, dict) or len(path) > DEPTH or id(held) in seen:
        return
    seen.add(id(held))  # once, however often the file names it
    yield path, held
    for key, value in held.items():
        if isinstance(value, dict) and isinstance(key, str) and not re.search("[/:]", key):
            yield from _dicts(value, (*path, key), seen)


def _title(kind: str, state: dict, prefix: str) -> str:
    inside = {name[len(prefix) :]: t for name, t in state.items() if str(name).startswith(prefix)}
    if kind == "ViT":
        network = vit.network_of(inside)
        return vit.SIZES[network].title if network else "ViT"
    network = keys.network_of(keys.from_sequential(inside))
    return keys.NETWORKS[network].title if network else "ResNet"


def _stranger(checkpoint: dict) -> str | None:
    names = {name for _, state in _dicts(checkpoint) for name in state if isinstance(name, str)}
    for pattern, title in _STRANGERS:
        if any(re.fullmatch(pattern, name) for name in names):
            return title
    return None


def _only_optimizer(checkpoint: dict) -> bool:
    """A dict of ``state`` and ``param_groups``, alone or beside scalars."""
    groups = any("param_groups" in state for _, state in _dicts(checkpoint))
    return groups and not any(
        hasattr(value, "shape")
        for path, state in _dicts(checkpoint)
        for name, value in state.items()
        if isinstance(name, str) and name.endswith(("weight", "bias"))
    )
