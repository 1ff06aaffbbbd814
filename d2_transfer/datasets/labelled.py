"""``--labels`` of known data sets: a part of the training images, those that keep their labels.

Nested by the seed and with the classes in their proportions, as the user's own data are drawn
(:mod:`densessl.annotations.draws`).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densessl.annotations import split
from densessl.annotations.draws import draw
from densessl.core.errors import InputError
from densessl.core.progress import track
from densessl.probes import label_images
from densessl.probes.label_images import VOID, BadLabels

logger = logging.getLogger("densessl")


def kept(dicts: Sequence[dict], amount: str, seed: int, says: bool) -> list[dict]:
    """Those of Detectron2's ``dicts`` that ``amount``, as ``10%`` or ``300``, leaves, in their
    order; InputError for another amount. ``says``: whether this process logs it."""
    count = split.amount(amount, len(dicts))
    bar = track(dicts, "labels of the training images", late=True) if says else dicts
    found = [dicts[number] for number in sorted(draw([*map(_classes, bar)], count, seed))]
    if says:
        logger.info(
            "trains on %d of %d images (--labels %s, --data-seed %d)",
            len(found),
            len(dicts),
            amount,
            seed,
        )
    return found


def _classes(entry: dict) -> set[int]:
    """The classes that an image has: of its objects, or where it has none of its label image."""
    if "annotations" in entry:
        objects = entry["annotations"]
        return {each["category_id"] for each in objects if not each.get("iscrowd")}
    file = entry["sem_seg_file_name"]
    try:
        return set(np.unique(label_images.read(Path(file))).tolist()) - {VOID}
    except BadLabels as error:
        raise InputError(str(error)) from None
