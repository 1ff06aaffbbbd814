"""The user's own images and label images, for custom_semseg: four folders, checked whole."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densessl import probes
from densessl.core.errors import InputError
from densessl.core.files import atomic, full_disk_reported

from ..datasets import parted

logger = logging.getLogger("densessl")
SHOWN = 5  # names of classes in a message


@dataclass(frozen=True)
class OwnData:
    """Training and validation images with their label images, of one list of classes; plain values,
    so that other processes can have it."""

    train: probes.Pairs
    val: probes.Pairs
    made: tuple[tuple[Path, bytes], ...] = ()  # label images that are not written yet
    facts: dict[str, Any] | None = None  # where they come from, if not from four folders

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    @property
    def sha256(self) -> tuple[str, str]:
        """Of training and validation: names, classes, the sizes of all files, the classes' pixels.

        A folder of trials is not resumed on other data.
        """
        return _hash_of(self.train, self.made), _hash_of(self.val, self.made)

    def written(self) -> "OwnData":
        """The same, once its label images are there; they are named by what they hold."""
        for file, content in self.made:
            if not file.is_file():
                with full_disk_reported(file), atomic(file) as stream:
                    stream.write(content)
        return replace(self, made=())

    def describe(self) -> str:
        """One line on the data."""
        return (
            f"to learn from: {self.train.facts}; to evaluate: {self.val.facts}"
            f"{parted.drawn(self.facts or {})}"
        )


def read_own(
    train_images: str | os.PathLike,
    train_masks: str | os.PathLike,
    val_images: str | os.PathLike,
    val_masks: str | os.PathLike,
    classes: str | os.PathLike | None = None,
    ignore: int | None = None,
    image_suffix: str | None = None,
    mask_suffix: str | None = None,
) -> OwnData:
    """Read and check the user's data; InputError for the first fault, with its file and value.

    As :func:`probes.read_pairs`, of which ``classes`` is the file of classes. What is odd but can
    be measured is a warning.
    """
    ignore = probes.label_images.VOID if ignore is None else ignore
    if not 0 <= ignore <= probes.label_images.VOID:
        raise InputError(f"--ignore is {ignore}; allowed: 0 to {probes.label_images.VOID}")
    how = {"image_suffix": image_suffix or "", "mask_suffix": mask_suffix or "", "ignore": ignore}
    train, val = probes.agreed(
        probes.read_pairs(train_images, train_masks, classes, **how),
        probes.read_pairs(val_images, val_masks, classes, **how),
    )
    for split, what in ((train, "to learn from"), (val, "to evaluate")):
        if split.absent:
            many = f"{len(split.absent)} of {len(split.classes)} classes have no pixel {what}"
            logger.warning("%s: %s", many, ", ".join(split.absent[:SHOWN]))
    if both := {*map(os.path.realpath, train.images)} & {*map(os.path.realpath, val.images)}:
        logger.warning("%d images are learnt from and evaluated, such as %s", len(both), min(both))
    return OwnData(train, val)


def _hash_of(pairs: probes.Pairs, made: Sequence[tuple[Path, bytes]]) -> str:
    lengths = {file: len(content) for file, content in made}
    files = (*pairs.images, *pairs.masks)
    sizes = [lengths[file] if file in lengths else os.path.getsize(file) for file in files]
    facts = (pairs.names, pairs.classes, pairs.ignore, pairs.pixels, pairs.ignored, sizes)
    return hashlib.sha256(repr(facts).encode()).hexdigest()
