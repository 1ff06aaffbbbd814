"""The images and label images of a dense probe: found and checked before anything runs."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor

from densessl.core.errors import InputError, unknown
from densessl.decoding import COLOURS, MAX_PIXELS, Range, UnreadableImage, decode
from densessl.decoding.channel_files import image_of
from densessl.decoding.channels import Planes, decode_channels
from densessl.probes import label_images, pairs

from .. import channels, datasets
from ..classification.folders import listed
from ..classification.images import SAMPLED, packed
from ..datasets.inspection import some
from ..datasets.labelled import drawn
from ..datasets.semantic import MaskPair, SemanticLayout
from .own import OwnData


@dataclass(frozen=True)
class Split:
    """Images with their label images, by number.

    ``images``, ``labels``: paths as bytes in one array each, which loader processes share.
    ``ignore``: the value of pixels without a class (0: classes count from 1). ``table``: the class
    of each value from 0 on, 255 for none, where values are no class numbers. ``bounds``,
    ``max_pixels``: as :func:`densessl.decoding.decode` has them; ``words``: as
    :mod:`densessl.decoding.channel_files`.
    """

    where: str  # what messages call it
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    ignore: int = label_images.VOID
    table: tuple[int, ...] = ()
    bounds: Range | None = None
    max_pixels: int = MAX_PIXELS
    channels: int = COLOURS  # others are read as they are stored
    words: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def whole(self) -> "Split":
        """The split of whole images, where this one's are windows of them."""
        return self

    def images_of(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """The number in :attr:`whole` of each of these images."""
        return np.asarray(numbers, dtype=np.int64)

    def path(self, index: int) -> str:
        """Where an image lies."""
        return os.fsdecode(self.images[index])

    def open(self, index: int) -> Image.Image | Planes:
        """The image as upright RGB, or its channels as stored. InputError for an unreadable one."""
        file = image_of(self.path(index), self.words)
        try:
            if self.channels != COLOURS:
                return decode_channels(file, self.channels, self.bounds, self.max_pixels)
            return decode(file, self.bounds, self.max_pixels).image
        except UnreadableImage as error:
            raise InputError(f"{self.where}: {self.path(index)} cannot be read: {error}") from None

    def labels_of(self, index: int) -> Tensor:
        """The class of each pixel, uint8 ``[H, W]``, 255 where there is none.

        InputError for a label image that cannot be read, or with other values.
        """
        path = Path(os.fsdecode(self.labels[index]))
        try:
            values = pairs.read_labels(path, self.ignore)
            label_images.check(path, values, len(self.table) or len(self.classes))
        except label_images.BadLabels as error:
            raise InputError(f"{self.where}: {error}") from None
        if self.table:
            void = [label_images.VOID] * (label_images.VOID + 1 - len(self.table))
            values = np.array([*self.table, *void], np.uint8)[values]
        return torch.from_numpy(values)

    def fingerprint(self) -> str:
        """A SHA-256 over classes, names and the sizes of some files, not the place."""
        numbers = (self.classes, self.ignore, *([self.table] if self.table else []))
        digest = hashlib.sha256(repr(numbers).encode())
        common = os.path.commonpath([*self.images.tolist(), *self.labels.tolist()])
        for files in (self.images, self.labels):
            digest.update(b"\0".join(name.removeprefix(common) for name in files.tolist()))
            for index in np.linspace(0, len(self) - 1, min(len(self), SAMPLED)).astype(int):
                digest.update(b"%d " % os.path.getsize(files[index]))
        return digest.hexdigest()


def check_data(
    cfg: CfgNode,
    data: str | os.PathLike | OwnData | None = None,
    stand_in: bool = False,
    evaluates: bool = False,
) -> Path | OwnData:
    """The folder that holds the data sets, or the user's own data; InputError with what is missing.

    As :func:`densessl.d2_transfer.datasets.check`; own data were checked when they were read.
    No probe keeps a model that could be evaluated alone (``evaluates``).
    """
    if isinstance(data, OwnData):
        for option in ("TRAIN_LIST", "TEST_LIST"):
            if cfg.DATASETS[option]:
                raise InputError(
                    f"DATASETS.{option} is '{cfg.DATASETS[option]}', but your own data are taken "
                    "whole: leave it out"
                )
        return data
    names = (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    known = [name for name, each in datasets.LAYOUTS.items() if isinstance(each, SemanticLayout)]
    for key, name in zip(("TRAIN", "TEST"), names, strict=True):
        if name not in known:
            raise unknown("data set", name, known, f"DATASETS.{key}")
    classes = [_layout(name).classes for name in names]
    if len(set(classes)) > 1:
        raise InputError(
            f"DATASETS.TRAIN {names[0]} has {classes[0]} classes, DATASETS.TEST {names[1]} "
            f"{classes[1]}; allowed: two of the same"
        )
    root = datasets.check(names, data, stand_in=stand_in)
    if cfg.DATASETS.TRAIN_LIST or cfg.DATASETS.TEST_LIST:
        read(cfg, root)  # InputError unless they fit
    return root


def read(cfg: CfgNode, data: Path | OwnData) -> tuple[Split, Split]:
    """The images that are learnt from, and those that are evaluated, decoded as INPUT says."""
    if isinstance(data, OwnData):
        splits = [
            _split(f"your {each} images", own.images, own.masks, own.classes, own.ignore)
            for each, own in (("training", data.train), ("validation", data.val))
        ]
    else:
        sets = cfg.DATASETS
        splits = [
            _of_layout(sets.TRAIN, data, sets.TRAIN_LIST, "DATASETS.TRAIN_LIST"),
            _of_layout(sets.TEST, data, sets.TEST_LIST, "DATASETS.TEST_LIST"),
        ]
    train, test = (channels.decoded(split, cfg) for split in splits)
    return train, test


def labelled(cfg: CfgNode, train: Split, says: bool) -> Split:
    """Those of the training images that keep their labels (DATASETS.LABELS). ``says``: whether this
    process logs it."""

    def classes(number: int) -> set[int]:
        return {*train.labels_of(number).unique().tolist()} - {label_images.VOID}

    numbers = drawn(cfg, len(train), classes, says)
    return replace(train, images=train.images[numbers], labels=train.labels[numbers])


def _layout(name: str) -> SemanticLayout:
    found = datasets.LAYOUTS[name]
    assert isinstance(found, SemanticLayout)  # as `check` saw
    return found


def _of_layout(name: str, root: Path, wanted: str, option: str) -> Split:
    layout, classes = _layout(name), datasets.class_names(name)
    found = layout.pairs(root)
    if wanted:
        found, name = _of_list(found, name, wanted, root, option)
    images, labels = [pair.image for pair in found], [pair.labels for pair in found]
    return replace(_split(name, images, labels, classes, layout.void), table=layout.table)


def _split(
    where: str, images: Sequence[Path], labels: Sequence[Path], classes: Sequence[str], ignore: int
) -> Split:
    names, masks = (packed(list(map(str, each))) for each in (images, labels))
    return Split(where, names, masks, tuple(classes), ignore)


def training_files(cfg: CfgNode, data: Path | OwnData) -> list[Path]:
    """The files of all training images."""
    train, _ = read(cfg, data)
    return [Path(train.path(index)) for index in range(len(train))]


def _of_list(
    pairs: Sequence[MaskPair], name: str, wanted: str, root: Path, option: str
) -> tuple[list[MaskPair], str]:
    """The pairs whose images a list names, in their own order, and what messages call them.

    ``wanted``: a text file (looked for in ``root``, then as it stands) of image names, one a line,
    with their ending and folders or without; what follows white space is ignored. ``name``: of the
    data set; ``option``: of the list. Raises InputError for a missing list, for names that are not
    there, and for one that several images have.
    """
    paths = (root / wanted, Path(wanted).expanduser())
    file = next((path for path in paths if path.is_file()), paths[1])
    lines = [line.split()[0] for line in listed(file, option, wanted)]
    asked = {Path(line).name for line in lines}
    known = {each for pair in pairs for each in (pair.image.name, pair.image.stem)}
    if missing := sorted(asked - known):
        raise InputError(
            f"{option}: {file}: {len(missing)} of its {len(asked)} images are not in {name}: "
            f"{some(missing)}"
        )
    kept = [pair for pair in pairs if asked & {pair.image.name, pair.image.stem}]
    if len(kept) != len(asked):
        raise InputError(
            f"{option}: {file} has {len(asked)} names for {len(kept)} images of {name}; allowed: "
            "one name for each image, that no other has"
        )
    return kept, f"{name}, of {file.name}"
