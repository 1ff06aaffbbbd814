"""Cityscapes: ``*_gtFine_labelTrainIds.png`` beside each ``*_gtFine_labelIds.png``."""

from pathlib import Path

import numpy as np

from densessl.core.errors import InputError
from densessl.probes import label_images
from densessl.probes.label_images import BadLabels

from ..cityscapes import UNKNOWN, inspect_files, train_ids
from ..inspection import some
from .plan import Item, Plan


def plan(root: Path, sbd: Path | None = None) -> Plan:
    """The files of both splits; InputError where images or labelIds are not there."""
    train_ids()  # or the environment lacks its table
    items, counts, problems = [], {}, []
    for split in ("train", "val"):
        found, frames = inspect_files(root, split, ("labelIds.png",))
        problems += found.problems
        counts[f"cityscapes_fine_sem_seg_{split}"] = len(frames)
        items += [
            Item(frame.file("labelIds.png"), frame.file("labelTrainIds.png"), frame.image)
            for frame in frames
        ]
    if problems:
        raise InputError("\n  ".join(["Cityscapes is not as it was published:", *problems]))
    return Plan(items, labels, counts)


def labels(item: Item) -> np.ndarray:
    """The train id of every pixel, by cityscapesScripts' table."""
    values = label_images.read(item.source)
    table = train_ids()
    label_images.check(item.source, values, len(table), item.image)
    trained = table[values]
    if (unknown := np.unique(values[trained == UNKNOWN])).size:
        raise BadLabels(
            f"{item.source} has pixels of value {some(unknown.tolist())}, which is no label id of "
            "Cityscapes"
        )
    return trained.astype(np.uint8)
