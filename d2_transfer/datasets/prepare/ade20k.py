"""ADE20K: labels 1 to 150 with 0 for other, as 0 to 149 with 255."""

from pathlib import Path

import numpy as np

from densessl.core.errors import InputError
from densessl.probes import label_images

from ..inspection import Inspection, stems
from ..layouts import LAYOUTS
from ..semantic import ADE_CLASSES, reduce_zero
from .plan import Item, Plan


def plan(root: Path, sbd: Path | None = None) -> Plan:
    """``annotations_detectron2`` of both splits; InputError where the originals are not there."""
    items, counts, problems = [], {}, []
    for name in ("ade20k_sem_seg_train", "ade20k_sem_seg_val"):
        found = Inspection()
        images, originals, targets = LAYOUTS[name].folders(root)
        pictures, annotations = found.folder(images) or set(), found.folder(originals) or set()
        names = stems(annotations, ".png")
        if not found.problems:
            if not names:
                found.problems.append(f"{originals} holds no label images")
            found.need(originals, names, pictures, images, ".jpg")
        problems += found.problems
        counts[name] = len(names)
        for each in names:
            file = f"{each}.png"
            items.append(Item(originals / file, targets / file, images / f"{each}.jpg"))
    if problems:
        raise InputError("\n  ".join(["ADE20K is not as it was published:", *problems]))
    return Plan(items, labels, counts)


def labels(item: Item) -> np.ndarray:
    """One annotation, its numbers checked and reduced by one."""
    values = label_images.read(item.source)
    label_images.check(item.source, values, ADE_CLASSES + 1, item.image, void=False)
    return reduce_zero(values)
