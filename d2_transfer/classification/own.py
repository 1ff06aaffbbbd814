"""The user's own labelled images, for custom_cls: a tree of class folders, or a CSV."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densessl.annotations import class_trees
from densessl.annotations.model import Dataset
from densessl.core.errors import InputError

from ..datasets import parted
from .images import Images, packed


@dataclass(frozen=True)
class OwnImages:
    """Training and validation images of one list of classes; plain values, so that other processes
    can have it. ``facts``: where they come from."""

    train: Images
    val: Images
    facts: dict[str, Any]

    @property
    def sha256(self) -> tuple[str, str]:
        """Of training and validation: a folder of trials is not resumed on other data."""
        return self.train.fingerprint(), self.val.fingerprint()

    def written(self) -> "OwnImages":
        """Itself: nothing has to be written."""
        return self

    def describe(self) -> str:
        """One line on the data."""
        return (
            f"{len(self.train)} training images, {len(self.val)} to evaluate, "
            f"{len(self.train.classes)} classes{parted.drawn(self.facts)}"
        )


def read_own(train: str | os.PathLike, **how) -> OwnImages:
    """Read the user's data; InputError with every fault. ``how``: as of :func:`parted.read`."""
    found = parted.read(class_trees.recognise, train, **how)
    classes = tuple(each.name for each in found.train.categories)
    if len(classes) < 2:
        raise InputError(f"{train} has one class, '{classes[0]}'; at least two are needed")
    return OwnImages(
        _images(found.train, "your training images"),
        _images(found.val, "your validation images"),
        found.facts,
    )


def _images(data: Dataset, where: str) -> Images:
    names = [str(each.path.relative_to(data.root)) for each in data.pictures]
    labels = [each.objects[0].category for each in data.pictures]
    classes = tuple(each.name for each in data.categories)
    return Images(where, Path(data.root), packed(names), np.array(labels, np.int64), classes)
