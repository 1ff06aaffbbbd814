"""The user's annotations in any form: read, parted, and handed on as COCO's JSON."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from densessl import annotations
from densessl.annotations import coco
from densessl.annotations.model import Fault, listed
from densessl.annotations.sources import recognise
from densessl.core.errors import InputError

from . import custom, parted
from .custom import Custom

LETTERS = 12  # of a hash in a file's name


def read(
    folder: Path,
    train: str | os.PathLike,
    val: str | os.PathLike | None = None,
    need_masks: bool = False,
    need_keypoints: bool = False,
    **how: Any,
) -> Custom:
    """Training and validation data as :func:`custom.read` has them; InputError with every fault.

    ``folder``: where their JSON files are to lie; :meth:`Custom.written` writes them. ``how``: as
    of :func:`parted.read`.
    """
    if need_masks:
        how["check"] = _require_masks
    found = parted.read(recognise, train, val, **how)
    trained, evaluated = found.train, found.val
    if need_keypoints:
        _complete_keypoints(trained, evaluated)
    texts = tuple(coco.text(coco.content(each)).encode() for each in (trained, evaluated))
    files = [
        folder / f"{name}_{hashlib.sha256(text).hexdigest()[:LETTERS]}.json"
        for name, text in zip(("train", "val"), texts, strict=True)
    ]
    made = custom.read(
        files[0],
        trained.root,
        files[1],
        evaluated.root,
        need_masks,
        texts=(texts[0], texts[1]),
        need_keypoints=need_keypoints,
    )
    return replace(made, facts=found.facts)


def _complete_keypoints(*sets: annotations.Dataset) -> None:
    """Give classes of ``sets``, which have one list of them, the keypoints of the others where they
    have none, as Detectron2 has one list for all; of an object without keypoints all are absent."""
    classes = sets[0].categories
    if first := next((each for each in classes if each.keypoints), None):
        for place, each in enumerate(classes):
            if not each.keypoints:
                classes[place] = replace(
                    each,
                    keypoints=first.keypoints,
                    skeleton=first.skeleton,
                    mirrored=first.mirrored,
                )
        for made in (made for data in sets for made in data.objects()):
            made.keypoints = made.keypoints or [(0.0, 0.0, 0)] * len(first.keypoints)


def _require_masks(sets: Sequence[annotations.Dataset]) -> None:
    bare = [
        Fault(picture.path, each.at, "it has a box alone; custom_mask needs polygons or a mask")
        for data in sets
        for picture in data.pictures
        for each in picture.objects
        if not each.polygons and each.mask is None
    ]
    if bare:
        raise InputError(listed("the annotations cannot be used for custom_mask:", bare))
