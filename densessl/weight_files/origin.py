"""What a file tells of its network's origin: the architecture's name, timm's configuration.

The words stand in the file itself (arguments, hyper-parameters, metadata), in ``config.json``
beside it, or in its name. A variant of ResNet that computes something else with the same tensors
(blur pooling, say) can be told by nothing else.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError

WEIGHTS = (".bin", ".ckpt", ".pkl", ".pt", ".pth", ".safetensors", ".tar")
HUB = ("model", "pytorch_model")  # the stems that Hugging Face's hub gives every file
LARGEST = 2**20  # bytes of a config.json that is looked at
PLACES = ("args", "opt", "cfg", "config", "hyper_parameters", "hparams", "metadata", "model_args")
CONFIGURATIONS = ("pretrained_cfg", "default_cfg")  # timm's of today, and before
WORDS = ("arch", "architecture", "model", "model_name", "backbone", "backbone_name", "encoder")
_OPENMMLABS_BACKBONE = r"\bbackbone\s*=\s*dict\([^()]*?\btype='(\w+)'"
DEEP = 3  # of settings within settings

_VARIANTS = [  # by the architecture's name, as timm, torchvision and OpenMMLab write them
    (r"(?<![a-z])resnetblur\d+", "a ResNet with blur pooling"),
    (r"resnet\d+_lpf\d", "a ResNet with blur pooling"),
    (r"(?<![a-z])resnetaa\d+", "a ResNet that pools before it strides"),
    (r"res(ne|ni)xt", "a ResNeXt"),
    (r"resnest\d", "a ResNeSt"),
    (r"res2ne[tx]t?", "a Res2Net"),
    (r"wide_?resnet|resnet\d+_?[wx]([2-9]|\d\d)", "a wider ResNet"),
    (r"(?<![a-z])se_?resnet", "a ResNet with squeeze-and-excitation"),
    (r"(?<![a-z])((eca|sk|gc|nf|csp|lambda|bat)_?|t|x)resnet", "a variant of ResNet"),
    (r"resnetv2|resnet_v2_\d+|preact_?resnet", "a ResNet with pre-activation (v2)"),
    (r"resnet_?v1[cdes](?![a-z])|resnet\d+_v1[cdes](?![a-z0-9])", "a ResNet with a deep stem"),
    (r"resnet\d+[cdst]s?(?![a-z0-9])", "a ResNet with a deep stem"),
    (r"resnetrs\d+", "a ResNet-RS"),
    (r"resnet\d+_(gn|ibn\w*|clip\w*|mlp|evos|frn)(?![a-z])", "a variant of ResNet"),
]
# ResNeXts and wide ResNets of torchvision, whose tensors' shapes tell them
_TORCHVISIONS = (
    r"((tv|ig|fb|ssl|swsl|gluon)_)?"
    r"(resnext50_32x4d|resnext101_(32x8d|64x4d)|wide_resnet(50|101)_2)"
)
# Settings of timm's and transformers' ResNets, and the values that leave it a plain one
_PLAIN = {
    "act_layer": ("relu",),
    "aa_layer": ("",),
    "avg_down": (False,),
    "block_args": ({},),
    "base_width": (64,),
    "cardinality": (1,),
    "downsample_in_first_stage": (False,),  # of transformers
    "hidden_act": ("relu",),
    "norm_layer": ("batchnorm2d", "batchnorm", "bn"),
    "output_stride": (32,),
    "replace_stem_pool": (False,),
    "stem_type": ("",),
}


@dataclass
class Origin:
    """What a file says of itself: ``words`` and settings, each with the place that says it."""

    words: list[tuple[str, str]] = field(default_factory=list)
    configurations: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)  # JSON files, by their names

    def refuse_variants(self, where: str) -> None:
        """InputError where a word names a variant of ResNet, with the word and its place."""
        for word, place in self.words:
            if title := variant(word):
                raise InputError(
                    f"{where}: {place} says '{word}', which is {title}. What it computes is not "
                    "what a plain ResNet computes with the same tensors, so it is not converted"
                    + (
                        "; if the network is a plain ResNet after all, rename the file"
                        if place == "its name"
                        else ""
                    )
                )
        for settings, place in self.configurations:
            if changed := _changed(settings):
                raise InputError(
                    f"{where}: {place} says {changed}, by which a ResNet computes something else "
                    "than a plain one with the same tensors; it is not converted"
                )


def variant(word: str) -> str | None:
    """What the architecture's name says, if it is a known variant of ResNet ('a ResNeXt').

    Example: ``variant("timm/resnetblur50.bt_in1k")`` is 'a ResNet with blur pooling'.
    """
    name = word.lower().rpartition("/")[2].split(".")[0].replace("-", "_")
    if re.fullmatch(_TORCHVISIONS, name):
        return None
    return next((title for pattern, title in _VARIANTS if re.search(pattern, name)), None)


def of(checkpoint: Any, path: str | os.PathLike = "") -> Origin:
    """The origin that a checkpoint tells; with its ``path`` also what its name and place tell."""
    found = Origin()
    if isinstance(checkpoint, dict):
        _look(checkpoint, "", found, 0)
        _look(getattr(checkpoint, "metadata", None), "its metadata", found, 0)
        if backbone := re.search(_OPENMMLABS_BACKBONE, config_text(checkpoint)):
            found.words.append((backbone[1], "its config"))
    if path and Path(path).is_file():
        found.beside = beside(Path(path))
        for file, settings in found.beside.items():
            _look(settings, file, found, 0)
        found.words += [(name, "its name") for name in _names(Path(path))]
    return found


def beside(path: Path) -> dict[str, dict[str, Any]]:
    """``config.json`` and ``preprocessor_config.json``, where they belong to this file.

    That is so for the names that the hub gives, and where the folder holds no other weights.
    """
    if path.stem not in HUB:
        others = (p for p in path.parent.iterdir() if p.suffix in WEIGHTS and p != path)
        if next(others, None):
            return {}
    found = {}
    for name in ("config.json", "preprocessor_config.json"):
        file = path.with_name(name)
        try:
            if file.is_file() and file.stat().st_size <= LARGEST:
                held = json.loads(file.read_bytes())
                if isinstance(held, dict):
                    found[name] = held
        except (OSError, ValueError, RecursionError):  # somebody else's file
            continue
    return found


def config_text(checkpoint: dict) -> str:
    """The config that OpenMMLab's training (mmcv, mmengine) keeps as text, else ''."""
    meta = checkpoint.get("meta")
    text = (meta.get("config") or meta.get("cfg")) if isinstance(meta, dict) else None
    return text if isinstance(text, str) else ""


def plain(value: Any) -> Any:
    """A setting out of omegaconf's nodes, else the value itself."""
    if isinstance(value, dict) and type(value) is not dict:
        for name in ("_content", "_val"):
            if name in value:
                return plain(value[name])
    return value


def _look(held: Any, place: str, found: Origin, depth: int) -> None:
    """Add what settings say, at their ``place`` in the file ('' is its top level)."""
    held = plain(held)
    if not isinstance(held, dict) or depth > DEEP:
        return
    for name in WORDS:
        found.words += [(word, f"{place} {name}".strip()) for word in _texts(held.get(name))]
    for name in CONFIGURATIONS:
        settings = _parsed(held.get(name))
        if isinstance(settings, dict):
            found.configurations.append((settings, f"{place} {name}".strip()))
            _look(settings, f"{place} {name}".strip(), found, DEEP)
    if place and (isinstance(held.get("mean"), list | tuple) or held.get("model_type") == "resnet"):
        found.configurations.append((held, place))
    if isinstance(held.get("model_args"), dict):
        found.configurations.append((held["model_args"], f"{place} model_args".strip()))
    for name in PLACES:
        if name in held and name != "model_args":
            _look(held[name], f"{place} {name}".strip(), found, depth + 1)


def _texts(value: Any) -> Iterator[str]:
    """The architecture's name in a setting: a text, or a dict that has one."""
    value = plain(value)
    if isinstance(value, str):
        yield value[:100]
    elif isinstance(value, dict):
        for name in ("name", "type", "arch", "architecture"):
            inner = plain(value.get(name))
            if isinstance(inner, str):
                yield inner[:100]


def _parsed(value: Any) -> Any:
    """A setting that safetensors' metadata keep as JSON text."""
    try:
        return json.loads(value) if isinstance(value, str) else plain(value)
    except ValueError:
        return None


def _names(path: Path) -> Iterator[str]:
    """The file's name; of a file of the hub its folder's, or its repository's in the cache."""
    if path.stem not in HUB:
        yield path.name
        return
    folder = path.absolute().parent
    if folder.parent.name == "snapshots":
        folder = folder.parent.parent
    yield folder.name.rpartition("--")[2]


def _changed(settings: dict[str, Any]) -> str:
    """'KEY VALUE' of the first setting that makes another network of a ResNet, else ''."""
    for name, same in _PLAIN.items():
        value = plain(settings.get(name))
        word = value.lower() if isinstance(value, str) else value
        if value is not None and word not in same:
            return f"{name} {value!r:.60}"
    return ""
