"""The user's annotations in any form: read, parted, and handed on as COCO's JSON."""

import hashlib
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from densessl import annotations
from densessl.annotations import coco, split
from densessl.annotations.model import Fault, told
from densessl.core.errors import InputError
from densessl.core.names import one_line

from . import custom
from .custom import Custom

SHARE = 20  # per cent of the images that validate where nothing says which
LETTERS = 12  # of a hash in a file's name


def read(
    folder: Path,
    train: str | os.PathLike,
    val: str | os.PathLike | None = None,
    val_share: int | None = None,
    groups: str | os.PathLike | None = None,
    labels: str | None = None,
    data_seed: int | None = None,
    need_masks: bool = False,
    need_keypoints: bool = False,
) -> Custom:
    """Training and validation data as :func:`custom.read` has them; InputError with every fault.

    ``folder``: where their JSON files are to lie; :func:`custom.write` writes them. Without
    ``val``, the validation data are those of ``train`` itself where it has some, else
    ``val_share`` per cent of its images, drawn by ``data_seed`` in groups (``split.split``).
    ``labels``: so many of the training images, drawn by the same seed.
    """
    seed = data_seed or 0
    trained = annotations.read(train, "train")
    if val is None and trained.split == "train":
        others = [each for each in annotations.recognise(train) if each.split == "val"]
        val = train if others else None
    if val is not None and (val_share is not None or groups is not None):
        name, value = ("--groups", groups) if val_share is None else ("--val-share", val_share)
        raise InputError(f"{name} is '{value}', but {one_line(val)} has the validation data")
    evaluated = None if val is None else annotations.read(val, "val")
    _require_sound(need_masks, trained, *([evaluated] if evaluated else []))
    how = ""
    if evaluated is None:
        listed = None if groups is None else Path(groups)
        trained, evaluated, how = split.split(trained, val_share or SHARE, seed, listed)
    split.agree(trained, evaluated)
    if need_keypoints:
        _complete_keypoints(trained, evaluated)
    facts: dict[str, Any] = {"train": split.facts(trained), "val": split.facts(evaluated)}
    if how:
        facts["validation"] = how
    if labels is not None:
        every = len(trained.pictures)
        trained = split.labelled(trained, labels, seed)
        facts["train"] = split.facts(trained)
        facts["labels"] = f"{labels}: {len(trained.pictures)} of {every} images by seed {seed}"
    texts = tuple(coco.text(coco.content(each)).encode() for each in (trained, evaluated))
    files = [
        folder / f"{name}_{hashlib.sha256(text).hexdigest()[:LETTERS]}.json"
        for name, text in zip(("train", "val"), texts, strict=True)
    ]
    for remark in dict.fromkeys((*trained.remarks, *evaluated.remarks)):
        logging.getLogger("densessl").warning("%s", one_line(remark))
    found = custom.read(
        files[0],
        trained.root,
        files[1],
        evaluated.root,
        need_masks,
        texts=(texts[0], texts[1]),
        need_keypoints=need_keypoints,
    )
    return replace(found, facts=facts)


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
        for each in (each for data in sets for each in data.objects()):
            each.keypoints = each.keypoints or [(0.0, 0.0, 0)] * len(first.keypoints)


def _require_sound(need_masks: bool, *sets: annotations.Dataset) -> None:
    if all(data.faults for data in sets):
        both = [each for data in sets for each in data.faults]
        raise InputError(told("the annotations cannot be used as they are:", both))
    for data in sets:
        data.require_sound()
    bare = [
        Fault(picture.path, each.at, "it has a box alone; custom_mask needs polygons or a mask")
        for data in sets
        for picture in data.pictures
        for each in picture.objects
        if not each.polygons and each.mask is None
    ]
    if need_masks and bare:
        raise InputError(told("the annotations cannot be used for custom_mask:", bare))
