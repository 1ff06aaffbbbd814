"""``--labels`` of known data sets: a part of the training images, those that keep their labels.

Nested by the seed and with the classes in their proportions, as the user's own data are drawn
(:mod:`densessl.annotations.draws`).
"""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from densessl.annotations import split
from densessl.annotations.draws import draw
from densessl.core.errors import InputError
from densessl.core.progress import track
from densessl.probes import label_images
from densessl.probes.label_images import VOID, BadLabels

logger = logging.getLogger("densessl")


def drawn(cfg, images: int, classes_of: Callable[[int], Collection[int]], says: bool) -> list[int]:
    """The numbers, rising, of those of so many ``images`` that DATASETS.LABELS leaves, by
    DATASETS.LABELS_SEED; InputError for an amount that cannot be.

    ``classes_of``: those of the image of a number. ``says``: whether this process logs it.
    """
    amount, seed = cfg.DATASETS.LABELS, cfg.DATASETS.LABELS_SEED
    count = split.amount(amount, images)
    numbers = range(images)
    bar = track(numbers, "labels of the training images", late=True) if says else numbers
    found = sorted(draw([classes_of(number) for number in bar], count, seed))
    if says:
        logger.info(
            "trains on %d of %d images (--labels %s, --data-seed %d)", count, images, amount, seed
        )
    return found


def kept(dicts: Sequence[dict], cfg, says: bool) -> list[dict]:
    """The same of Detectron2's ``dicts``: those that are left."""
    numbers = drawn(cfg, len(dicts), lambda number: _classes(dicts[number]), says)
    return [dicts[number] for number in numbers]


def _classes(entry: dict) -> set[int]:
    """The classes that an image has: of its objects, or where it has none of its label image."""
    if "annotations" in entry:
        objects = entry["annotations"]
        return {each["category_id"] for each in objects if not each.get("iscrowd")}
    try:
        values = label_images.read(Path(entry["sem_seg_file_name"]))
    except BadLabels as error:
        raise InputError(str(error)) from None
    return {*np.unique(values).tolist()} - {VOID}
