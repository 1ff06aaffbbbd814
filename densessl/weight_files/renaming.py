"""From the names that others give a ResNet's tensors to torchvision's, and out of wrappers.

Caffe2's are those of Detectron's and Detectron2's model zoos (MSRA's ``R-50.pkl``), Hugging Face's
those of ``ResNetModel`` in transformers.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from densessl.core.errors import InputError

from . import keys
from .without_torch import as_tensor, full, library_of

# What torch.compile, FSDP and activation checkpointing put into names, anywhere
_INSERTED = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
DEPTH = 4  # of dicts within dicts whose names are looked at
_STATISTICS = {  # Caffe2's ends of a norm's names
    "s": "weight",
    "b": "bias",
    "gamma": "weight",
    "beta": "bias",
    "rm": "running_mean",
    "running_mean": "running_mean",
    "riv": "running_var",
    "running_var": "running_var",
}
_CAFFE2_NORM = rf"bn_({'|'.join(_STATISTICS)})"
_CONVOLUTION = {"2a": "1", "2b": "2", "2c": "3"}
_HUGGINGFACE = r"encoder\.stages\.(\d)\.layers\.(\d+)\."
EPSILON = 1e-5  # of batch norms, which a norm without statistics must not add


def unwrapped(checkpoint: Any) -> Any:
    """The checkpoint without ``_orig_mod.`` and its like in the names of its tensors.

    The checkpoint itself where it has none. Raises InputError where two names become one.
    """
    return _unwrapped(checkpoint, 0, {})


def _unwrapped(held: Any, depth: int, done: dict[int, Any]) -> Any:
    if not isinstance(held, dict) or depth > DEPTH:
        return held
    if id(held) in done:  # a file may hold one dict a million times
        return done[id(held)]
    done[id(held)] = held
    inner = {key: _unwrapped(value, depth + 1, done) for key, value in held.items()}
    names = {key: _INSERTED.sub("", key) if isinstance(key, str) else key for key in inner}
    if all(inner[key] is held[key] and names[key] == key for key in held):
        return held
    if len(set(names.values())) < len(names):
        twice = next(new for key, new in names.items() if new != key and new in inner)
        raise InputError(f"the checkpoint holds {twice} twice, once wrapped by torch.compile or so")
    done[id(held)] = renamed = type(held)()
    if hasattr(held, "__dict__"):
        vars(renamed).update(vars(held))
    renamed.update({names[key]: value for key, value in inner.items()})
    return renamed


def without_inserted(prefix: str) -> str:
    """A prefix as people copy it from a file, less ``_orig_mod.`` and its like."""
    return _INSERTED.sub("", prefix)


def in_torchvisions(state: dict[str, Any], names: str) -> dict[str, Any]:
    """The tensors of ``state`` under torchvision's names.

    ``names`` says whose they have: ``detectron2``, ``detector``, ``caffe2``, ``huggingface``. Of a
    detector and of Caffe2 what is not the backbone's is left out; other unknown names stay. Raises
    InputError for a tensor that is there twice.
    """
    renamed: dict[str, Any] = {}
    for name, value in state.items():
        if not belongs(name, names):
            continue
        new = _TRANSLATED[names](name) or name
        if new in renamed:
            raise InputError(f"the checkpoint holds {new} twice, once under the name {name}")
        renamed[new] = _tensor(value)
    return with_statistics(renamed) if names in ("caffe2", "detector") else renamed


def belongs(name: str, names: str) -> bool:
    """Whether a tensor of that name may be the backbone's (or the FPN's), under such ``names``."""
    if names == "detector":
        return keys.in_detector(name) is not None
    return names != "caffe2" or from_caffe2(name) is not None


def from_caffe2(name: str) -> str | None:
    """torchvision's name of a tensor of Caffe2's ResNet; None for what is not the backbone's.

    The bias of the first convolution, which MSRA's file has, is none of it: as in Detectron2.
    """
    if name == "conv1_w":
        return "conv1.weight"
    if found := re.fullmatch(rf"(?:res_)?conv1_{_CAFFE2_NORM}", name):
        return f"bn1.{_STATISTICS[found[1]]}"
    found = re.fullmatch(rf"res([2-5])_(\d+)_branch(1|2a|2b|2c)_(w|{_CAFFE2_NORM})", name)
    if not found:
        return None
    stage, block, branch, end, statistic = found.groups()
    place = f"layer{int(stage) - 1}.{block}"
    if branch == "1":
        part = "downsample.0" if end == "w" else "downsample.1"
    else:
        part = f"{'conv' if end == 'w' else 'bn'}{_CONVOLUTION[branch]}"
    return f"{place}.{part}.{'weight' if end == 'w' else _STATISTICS[statistic]}"


def from_huggingface(name: str) -> str | None:
    """torchvision's name of a tensor of Hugging Face's ``ResNetModel``; None for another."""
    conv, norm = r"convolution\.weight", r"normalization\.(\w+)"
    if re.fullmatch(rf"embedder\.embedder\.{conv}", name):
        return "conv1.weight"
    if found := re.fullmatch(rf"embedder\.embedder\.{norm}", name):
        return f"bn1.{found[1]}"
    if found := re.fullmatch(rf"{_HUGGINGFACE}shortcut\.(?:{conv}|{norm})", name):
        stage, block, part = found.groups()
        return f"layer{int(stage) + 1}.{block}.downsample.{f'1.{part}' if part else '0.weight'}"
    if found := re.fullmatch(rf"{_HUGGINGFACE}layer\.(\d)\.(?:{conv}|{norm})", name):
        stage, block, layer, part = found.groups()
        place, number = f"layer{int(stage) + 1}.{block}", int(layer) + 1
        return f"{place}.bn{number}.{part}" if part else f"{place}.conv{number}.weight"
    return None


def _from_detectron2(name: str) -> str | None:
    new = keys.in_detector(name) or name
    return _detectron2s_names().get(new, re.sub(r"^backbone\.(?=fpn_)", "", new))


@lru_cache
def _detectron2s_names() -> dict[str, str]:
    # The names of the deepest network include those of the others.
    return {new: old for old, new in keys.detectron2_names(max(keys.DEPTHS)).items()}


_TRANSLATED: dict[str, Callable[[str], str | None]] = {
    "detectron2": _from_detectron2,
    "detector": _from_detectron2,
    "caffe2": from_caffe2,
    "huggingface": from_huggingface,
}


def with_statistics(state: dict[str, Any]) -> dict[str, Any]:
    """The same tensors; to norms of scale and bias alone, a mean of 0 and a variance of 1.

    Caffe2's AffineChannel and Detectron2's first FrozenBatchNorm2d hold no statistics, since they
    are in their scale and bias. The variance is 1 less what a batch norm adds to it. Files that
    have some statistics are returned as they are.
    """
    if any(name.endswith(("running_mean", "running_var")) for name in state):
        return state
    norms = [name for name in state if re.search(r"(^|\.)(bn\d|downsample\.1)\.weight$", name)]
    for name in norms:
        place, tensor = name.removesuffix("weight"), state[name]
        if library_of(tensor):
            state[f"{place}running_mean"] = full(tensor.shape, 0, "float32")
            state[f"{place}running_var"] = full(tensor.shape, 1 - EPSILON, "float32")
    return state


def as_tensors(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The tensors behind a prefix, of arrays as of tensors."""
    return {
        name[len(prefix) :]: _tensor(value)
        for name, value in state.items()
        if name.startswith(prefix)
    }


def _tensor(value: Any) -> Any:
    """A tensor of an array's numbers; what is no array, or one of texts, stays."""
    import numpy

    is_array = isinstance(value, numpy.ndarray | numpy.generic)
    return as_tensor(value) if is_array and value.dtype.kind not in "SU" else value
