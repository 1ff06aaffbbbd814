"""A user's LazyConfig, Detectron2's configs in Python, as a protocol: ``--protocol mine.py``.

The file is run, as Detectron2 runs it. Its model, optimizer, schedule and mappers are made of it;
everything else (order of batches, checkpoints, stops, evaluation, records) is as for every
protocol. A config of ours stands for it: LAZY.CONFIG has all of it as YAML, and the keys that
checks and messages read are set from it and from the model that it makes.
"""

import contextlib
import copy
import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from densessl.core import options
from densessl.core.errors import InputError, unknown
from densessl.core.external import failure
from densessl.weight_files.keys import BLOCKS

from . import compat

SUFFIX = ".py"
NEEDED = (
    "model",
    "optimizer.params",
    "lr_multiplier",
    "train.max_iter",
    "dataloader.train.dataset.names",
    "dataloader.train.mapper",
    "dataloader.train.total_batch_size",
    "dataloader.test.dataset.names",
    "dataloader.test.mapper",
)
LOADERS = {  # what batches are drawn as by this package, by seed and step
    "dataloader.train": "build_detection_train_loader",
    "dataloader.test": "build_detection_test_loader",
    "dataloader.train.dataset": "get_detection_dataset_dicts",
    "dataloader.test.dataset": "get_detection_dataset_dicts",
}
OURS = (  # options of ours that a LazyConfig has no key for
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.TIMEOUT",
    "TEST.EVALUATOR",
)
DEPTHS = {  # by kind, and how many there are in res2 to res4
    ("BottleneckBlock" if bottleneck else "BasicBlock", *stages[:3]): depth
    for (*stages, bottleneck), depth in BLOCKS.items()
}


def load(file: Path) -> dict[str, Any]:
    """What the file holds, interpolations resolved and targets by name, as plain values.

    It is run once a process for each content. Raises InputError with its line where it fails, and
    for values that no text can hold.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    return copy.deepcopy(_run(file, hashlib.sha256(content).hexdigest()))


@lru_cache
def _run(file: Path, digest: str) -> dict[str, Any]:
    compat.setup()
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf

    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: its neighbours stand in for nothing
    try:
        found = LazyConfig.load(str(file))
        held = OmegaConf.to_container(found, resolve=True)
    except Exception as error:  # the user's file raises anything
        line, message = failure(error, str(file))
        raise InputError(f"{file.name}, line {line}: {message}") from error
    plain = _plain(held, file.name)
    keys = options.flat(plain)
    for key in NEEDED:
        if key not in keys and not any(each.startswith(f"{key}.") for each in keys):
            raise InputError(f"{file.name} has no {key}; a LazyConfig that trains has one")
    for key, made in LOADERS.items():
        target = str(keys.get(f"{key}._target_"))
        if target.rpartition(".")[2] != made:
            raise InputError(
                f"{file.name}: {key} is {target}; allowed: {made}, whose batches can be drawn "
                "again after a stop"
            )
    return plain


def _plain(value: Any, where: str) -> Any:
    """With names in place of what is called; InputError for any other object."""
    from detectron2.utils.registry import _convert_target_to_string, locate

    if isinstance(value, dict):
        return {key: _plain(each, f"{where}: {key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, where) for each in value]
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__name__)
        if getattr(value, "__module__", None):
            found = _convert_target_to_string(value)
            with contextlib.suppress(Exception):  # the import of another module may raise anything
                if locate(found) is value:
                    return found
        raise InputError(
            f"{where} is {name}, which no other process could import: put it into a module beside "
            "the config, and import it from there"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{where} is a {type(value).__name__}; name it as L(...) or as a plain value")


def names(held: dict[str, Any], which: str) -> tuple[str, ...]:
    """Of the data sets, ``which``: train or test."""
    found = held["dataloader"][which]["dataset"]["names"]
    return (found,) if isinstance(found, str) else tuple(found)


def has(held: dict[str, Any], head: str) -> bool:
    """Whether the model has such a head (``mask_head``, ``keypoint_head``) for its regions."""
    return bool((held["model"].get("roi_heads") or {}).get(head))


def apply(cfg, file: Path, overrides: Sequence[str]) -> list[str]:
    """Set in ``cfg`` all that the file says, with KEY VALUE … of its own keys; those of OURS are
    returned."""
    held = load(file)
    flat = options.flat(held)
    words, ours = options.pairs(overrides), []
    for key, value in zip(words[::2], words[1::2], strict=True):
        if key in OURS:
            ours += [key, value]
            continue
        if key not in flat:
            raise unknown("key", key, [*OURS, *flat], file.name)
        kinds = () if flat[key] is None else (type(flat[key]),)
        typed = options.option(flat[key], kinds=kinds).typed(options.bare(value), key)
        _set(held, key, list(typed) if isinstance(typed, tuple) else typed)
    train, data = held["train"], held["dataloader"]
    cfg.LAZY.FILE, cfg.LAZY.CONFIG = str(file), yaml.safe_dump(held, sort_keys=True)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = names(held, "train"), names(held, "test")
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = data["train"]["dataset"].get("filter_empty", True)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = data["train"].get("aspect_ratio_grouping", True)
    cfg.DATALOADER.NUM_WORKERS = data["train"].get("num_workers", 0)
    cfg.INPUT.FORMAT = data["train"]["mapper"].get("image_format", "BGR")
    solver = cfg.SOLVER
    solver.REFERENCE_WORLD_SIZE = 0  # no number of GPUs changes its schedule
    solver.MAX_ITER, solver.STEPS = train["max_iter"], ()
    solver.IMS_PER_BATCH = data["train"]["total_batch_size"]
    solver.BASE_LR = float(held["optimizer"].get("lr", solver.BASE_LR))
    solver.AMP.ENABLED = bool((train.get("amp") or {}).get("enabled", False))
    solver.CHECKPOINT_PERIOD = (train.get("checkpointer") or {}).get("period", 5000)
    cfg.TEST.EVAL_PERIOD = train.get("eval_period", 0)
    model = cfg.MODEL
    model.META_ARCHITECTURE = str(held["model"]["_target_"]).rpartition(".")[2]
    model.MASK_ON, model.KEYPOINT_ON = has(held, "mask_head"), has(held, "keypoint_head")
    for key, value in _facts(cfg.LAZY.CONFIG, file.name).items():
        _set(model, key, value)
    return ours


def _set(node: Any, key: str, value: Any) -> None:
    *groups, leaf = key.split(".")
    for group in groups:
        node = node[group]
    node[leaf] = value


@lru_cache
def _facts(text: str, shown: str) -> dict[str, Any]:
    """Of the model that is made: what the weights must match, by the keys below MODEL."""
    from detectron2.modeling import ResNet

    try:
        model = _made(yaml.safe_load(text)["model"])
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{shown}: the config makes no model: {type(error).__name__}: {message}"
        ) from error
    found: dict[str, Any] = {
        "PIXEL_MEAN": [round(each, 4) for each in model.pixel_mean.flatten().tolist()],
        "PIXEL_STD": [round(each, 4) for each in model.pixel_std.flatten().tolist()],
    }
    backbone = getattr(model.backbone, "bottom_up", model.backbone)
    if not isinstance(backbone, ResNet):
        return found | {"RESNETS.DEPTH": 0}  # which no weights have
    stages = [getattr(backbone, name) for name in ("res2", "res3", "res4")]
    kind, counts = type(stages[0][0]).__name__, map(len, stages)
    conv = stages[0][0].conv2
    parts = [backbone.stem, *stages]
    frozen = [not any(each.requires_grad for each in part.parameters()) for part in parts]
    return found | {
        "RESNETS.DEPTH": DEPTHS.get((kind, *counts), 0),
        "RESNETS.STEM_OUT_CHANNELS": backbone.stem.out_channels,
        "RESNETS.RES2_OUT_CHANNELS": stages[0][-1].out_channels,
        "RESNETS.NUM_GROUPS": conv.groups,
        "RESNETS.WIDTH_PER_GROUP": conv.out_channels // conv.groups,
        "RESNETS.STRIDE_IN_1X1": stages[1][0].conv1.stride[0] == 2,
        "RESNETS.NORM": type(backbone.stem.conv1.norm).__name__,
        "BACKBONE.FREEZE_AT": frozen.index(False) if False in frozen else len(parts),
    }


def _made(part: Any) -> Any:
    """What a part of the config makes: its target called with what its keys make."""
    compat.setup()
    from detectron2.config import instantiate
    from omegaconf import OmegaConf

    return instantiate(OmegaConf.create(part, flags={"allow_objects": True}))


def _held(cfg) -> dict[str, Any]:
    """The config; its file has been run in this process, which may register data sets and heads."""
    load(Path(cfg.LAZY.FILE))
    return yaml.safe_load(cfg.LAZY.CONFIG)


def model(cfg):
    """The model, on MODEL.DEVICE."""
    return _made(_held(cfg)["model"]).to(cfg.MODEL.DEVICE)


def optimizer(cfg, built):
    """The optimizer of the parameters of ``built``."""
    from omegaconf import OmegaConf

    compat.setup()
    from detectron2.config import instantiate

    part = OmegaConf.create(_held(cfg)["optimizer"], flags={"allow_objects": True})
    part.params.model = built
    return instantiate(part)


def schedule(cfg, made):
    """The learning rate of the optimizer ``made``."""
    compat.setup()
    from detectron2.solver import LRMultiplier

    held = _held(cfg)
    return LRMultiplier(made, _made(held["lr_multiplier"]), held["train"]["max_iter"])


def mapper(cfg, is_train: bool) -> Callable[[dict], dict]:
    """What turns a data set's dict into the model's input."""
    return _made(_held(cfg)["dataloader"]["train" if is_train else "test"]["mapper"])


def evaluator(cfg) -> Callable[[str], Any] | None:
    """What makes the evaluator of a data set; None for COCO's, which is ours, and where the config
    has none."""
    part = cfg.LAZY.CONFIG and _held(cfg)["dataloader"].get("evaluator")
    if not part or str(part["_target_"]).rpartition(".")[2] == "COCOEvaluator":
        return None

    def made(dataset_name: str) -> Any:
        return _made(part | ({"dataset_name": dataset_name} if "dataset_name" in part else {}))

    return made


def check_words(file: Path, overrides: Iterable[str]) -> None:
    """InputError for a key that the file does not have."""
    apply(compat.get_cfg(), file, tuple(overrides))
