"""Cityscapes' polygons as Detectron2 trains on them, read in several processes.

In place of its ``load_cityscapes_instances``, with the same reader of single files: that one leaves
its processes running, with the signal handlers of a trial, so that they never end; and it reads in
the order of the disk.
"""

import functools
import os
from pathlib import Path

from densessl.core import pool

from .. import compat
from .cityscapes import frames

KINDS = ("instanceIds.png", "labelIds.png", "polygons.json")  # the order of that reader's files
FEW = 64  # images that one process reads before others have begun


def read(root: Path, split: str) -> list[dict]:
    """Every image of a split with its objects, in Detectron2's format, by city and name."""
    compat.setup()
    from detectron2.data.datasets.cityscapes import _cityscapes_files_to_dict
    from detectron2.utils.comm import get_world_size

    numbers = contiguous_ids()
    files = [
        (str(frame.image), *(str(frame.file(kind)) for kind in KINDS))
        for frame in frames(root, split)
    ]
    read_one = functools.partial(_cityscapes_files_to_dict, from_json=True, to_polygons=True)
    workers = 1 if len(files) <= FEW else max((os.cpu_count() or 1) // get_world_size(), 1)
    with pool.results(read_one, files, workers, forked=True) as records:
        found = list(records)
    for record in found:
        for each in record["annotations"]:
            each["category_id"] = numbers[each["category_id"]]
    return found


def contiguous_ids() -> dict[int, int]:
    """Cityscapes' ids of the classes with instances, as 0 to 7, in ``thing_classes``' order."""
    from cityscapesscripts.helpers.labels import labels

    evaluated = [each.id for each in labels if each.hasInstances and not each.ignoreInEval]
    return {id: number for number, id in enumerate(evaluated)}
