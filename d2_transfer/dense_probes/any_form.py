"""The user's annotations in any form, as images and label images for the dense probes."""

import hashlib
import os
from functools import partial
from pathlib import Path

import numpy as np

from densessl import probes
from densessl.annotations import semantic
from densessl.annotations.model import AnnotatedImage, Dataset
from densessl.core.errors import InputError
from densessl.probes.label_images import VOID

from ..datasets import parted
from .own import OwnData

LETTERS = 12  # of a hash in a folder's name


def read_any_form(folder: Path, train: str | os.PathLike, **how) -> OwnData:
    """Training and validation images with their label images; InputError with every fault.

    ``folder``: where label images are to lie that are made of something else;
    :meth:`OwnData.written` writes them. ``how``: as of :func:`parted.read`.
    """
    pixels = semantic.LabelledPixels()
    found = parted.read(partial(semantic.recognise, pixels=pixels), train, **how)
    classes = tuple(each.name for each in found.train.categories)
    if not 2 <= len(classes) <= semantic.MOST_CLASSES:
        raise InputError(
            f"{train} has {len(classes)} classes ({', '.join(classes[:5])}); allowed: 2 to "
            f"{semantic.MOST_CLASSES}"
        )
    made: dict[Path, bytes] = {}
    pairs = [
        _pairs(data, classes, pixels, folder / f"labels_{name}", made)
        for name, data in (("train", found.train), ("val", found.val))
    ]
    return OwnData(pairs[0], pairs[1], made=tuple(made.items()), facts=found.facts)


def _pairs(
    data: Dataset,
    classes: tuple[str, ...],
    pixels: semantic.LabelledPixels,
    folder: Path,
    made: dict[Path, bytes],
) -> probes.Pairs:
    counts = np.zeros(VOID + 1, np.int64)
    masks = []
    for each in data.pictures:
        labels = _labels(each, classes, pixels)
        counts += np.bincount(labels.ravel(), minlength=VOID + 1)
        file = pixels.files.get(each.path)
        if file is None or pixels.names[each.path] != classes[: len(pixels.names[each.path])]:
            text = semantic.encoded(labels)
            name = hashlib.sha256(text).hexdigest()[:LETTERS]
            file = folder / f"{each.path.stem}_{name}.png"
            made[file] = text
        masks.append(file)
    if not counts[: len(classes)].any():
        raise InputError(f"{data.path}: no pixel has a class")
    return probes.Pairs(
        images=tuple(each.path for each in data.pictures),
        masks=tuple(masks),
        names=tuple(each.path.relative_to(data.root).as_posix() for each in data.pictures),
        classes=classes,
        pixels=tuple(map(int, counts[: len(classes)])),
        ignored=int(counts[VOID]),
        ignore=VOID,
    )


def _labels(
    each: AnnotatedImage, classes: tuple[str, ...], pixels: semantic.LabelledPixels
) -> np.ndarray:
    """Numbers of ``classes``; each set was read with classes of its own."""
    own = pixels.names[each.path]
    places = np.full(VOID + 1, VOID, np.uint8)
    places[: len(own)] = [classes.index(name) for name in own]
    return places[pixels.read[each.path]()]
