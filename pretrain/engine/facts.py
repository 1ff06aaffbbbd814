"""What a checkpoint tells of the data and the length of its run."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from densessl.core import distributed, files
from densessl.weight_files.recognise import from_file

from .. import config
from ..methods import find_method
from ..views import ImageSource
from .resume import FREE

ONLINE = ("KNN.", "PROBE.")  # begin the options of what only looks on


def data_facts(
    cfg: CfgNode, source: ImageSource, steps: int, steps_per_epoch: int
) -> dict[str, Any]:
    """The facts of a run over ``source`` of so many steps; records and tables show them.

    Runs of one ``recipe`` and different ``seed`` are several pretrainings by one method.
    """
    return {
        "dataset": dataset_name(cfg.DATA),
        "images": len(source),
        "images_sha256": source.fingerprint(),
        "epochs": round(steps / steps_per_epoch, 4),
        "steps": steps,
        "batch_size": cfg.SOLVER.BATCH_SIZE,
        "processes": distributed.world_size(),
        "config_name": config_names(cfg),
        "recipe": recipe(cfg),
        "seed": cfg.SEED,
        "local_crops": cfg.VIEWS.LOCAL_CROPS,
        **find_method(cfg.METHOD.NAME).facts(cfg),
    }


def start_facts(weights: str) -> dict[str, str]:
    """What a run starts from: the file's SHA-256, and its recipe where our pretraining made it.

    A start that is pretrained anew for each seed is one start by its recipe, not by its content.
    """
    _, found = from_file(weights)
    start_recipe = str((found.pretrain or {}).get("recipe") or "")
    return {
        "start_sha256": files.sha256(weights),
        **({"start_recipe": start_recipe} if start_recipe else {}),
    }


def config_names(cfg: CfgNode) -> list[str]:
    """The built-in configs that ask for this very run, but for its seed and where it runs.

    Tables know by them which row of a paper a record belongs to. None for a run of one's own;
    several where papers give one run several rows.
    """
    run = _experiment(cfg)
    return [
        name for name, options in _built_in().items() if config.as_asked(run, options) == options
    ]


def recipe(cfg: CfgNode) -> str:
    """The SHA-256 of the options that make the run what it is, but for its seed."""
    text = json.dumps(_experiment(cfg), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache
def _built_in() -> dict[str, dict[str, Any]]:
    return {name: _experiment(config.load(name)) for name in config.built_in()}


def _experiment(cfg: CfgNode) -> dict[str, Any]:
    """The options that make the run what it is; of the data, which classes."""
    return {
        key: value
        for key, value in config.flat(cfg).items()
        if key == "DATA.CLASSES" or not (key in FREE or key == "SEED" or key.startswith(ONLINE))
    }


def dataset_name(data: CfgNode) -> str:
    """What records call the data: ``imagenet/train``, or ``coco/train2017:coco/unlabeled2017``."""
    paths = config.split_paths(data.PATH)
    names = ["/".join(Path(path).absolute().parts[-2:]) for path in paths]
    return ":".join(names) + (f" ({Path(data.CLASSES).stem})" if data.CLASSES else "")
