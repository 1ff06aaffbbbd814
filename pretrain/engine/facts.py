"""What a checkpoint tells of the data and the length of its run."""

import os
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from ..views import ImageSource
from . import distributed


def data_facts(
    cfg: CfgNode, source: ImageSource, steps: int, steps_per_epoch: int
) -> dict[str, Any]:
    """The facts of a run over ``source`` of so many steps; records and tables show them."""
    return {
        "dataset": dataset_name(cfg.DATA),
        "images": len(source),
        "images_sha256": source.fingerprint(),
        "epochs": round(steps / steps_per_epoch, 4),
        "steps": steps,
        "batch_size": cfg.SOLVER.BATCH_SIZE,
        "processes": distributed.world_size(),
    }


def dataset_name(data: CfgNode) -> str:
    """What records call the data: ``imagenet/train``, or ``coco/train2017:coco/unlabeled2017``."""
    paths = [data.PATH] if Path(data.PATH).exists() else data.PATH.split(os.pathsep)
    names = ["/".join(Path(path).absolute().parts[-2:]) for path in paths]
    return ":".join(names) + (f" ({Path(data.CLASSES).stem})" if data.CLASSES else "")
