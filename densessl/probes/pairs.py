"""One's own images and label images: two folders, checked whole before they are used."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densessl.core import limits
from densessl.core.errors import InputError
from densessl.core.files import read_text
from densessl.core.names import one_line
from densessl.core.progress import track
from densessl.decoding import Range, UnreadableImage, decode, size_of

from . import label_images
from .files import matched
from .label_images import VOID, BadLabels

DEEP_VOID = 65_535  # the same of 16 bits
MOST_CLASSES = 255  # a label is a byte, of which 255 is the ignored one
THREADS = 8
IGNORE = "--ignore"  # as commands call the option


@dataclass(frozen=True)
class Pairs:
    """Images and their label images, in the order of their names.

    ``names`` are the paths below both folders without suffixes; ``classes`` the names of the
    classes; ``pixels [classes]`` how many pixels of each the label images hold, ``ignored`` how
    many are of none.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    ignored: int
    ignore: int
    bounds: Range | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """The image, RGB uint8 ``[3, H, W]``, and its labels, uint8 ``[H, W]``: class numbers, and
        255 for what is ignored. Raises InputError for a file that changed and cannot be read."""
        try:
            image = decode(self.images[index], self.bounds, max_pixels=0).image
            labels = read_labels(self.masks[index], self.ignore)
        except UnreadableImage as error:
            raise InputError(f"{one_line(self.images[index])} cannot be read: {error}") from None
        except BadLabels as error:
            raise InputError(one_line(error)) from None
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.from_numpy(labels)

    @property
    def facts(self) -> str:
        """A line for people: '701 images, 11 classes, 118,000 labelled pixels, 2 % ignored'."""
        labelled = sum(self.pixels)
        share = 100 * self.ignored / (labelled + self.ignored)
        without = f"; without a pixel: {', '.join(self.absent)}" if self.absent else ""
        return (
            f"{len(self):,} images, {len(self.classes)} classes, {labelled:,} labelled pixels, "
            f"{share:.1f} % of all ignored{without}"
        )

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes of which no label image has a pixel."""
        return tuple(
            name for name, count in zip(self.classes, self.pixels, strict=True) if not count
        )


def read_pairs(
    images: str | os.PathLike,
    masks: str | os.PathLike,
    classes_file: str | os.PathLike | None = None,
    *,
    image_suffix: str = "",
    mask_suffix: str = "",
    ignore: int = VOID,
    bounds: Range | None = None,
) -> Pairs:
    """The images below one folder with the PNG label images of the same names below another.

    ``a/b.jpg`` belongs to ``a/b.png``, or to ``a/b_mask.png`` with ``mask_suffix="_mask"``. A label
    image has one channel (grey or palette, whose indices count) of 8 bits, or of 16 with small
    values; its pixels are class numbers from 0, or ``ignore``. It has the size of the image as
    decoding gives it, which is upright by EXIF's orientation; its own is not looked at. All label
    images are read once.

    Args:
        classes_file: the names of the classes, one a line, the first is class 0; without, the
            classes are numbered up to the largest that is found.
        ignore: the value of pixels that belong to no class, as 255 (of 16 bits 65,535) always
            does; they become 255. With 0, classes count from 1 in the files: 1 is class 0.
        bounds: for images of more than 8 bits, as of :func:`densessl.decoding.decode`;
            ``dataclasses.replace(pairs, bounds=…)`` sets it later.

    Raises:
        InputError: for what does not fit, with the file and the value. Label images without an
            image are left out with a notice; images without a label image are refused.
    """
    images, masks = Path(images), Path(masks)
    classes = _class_names(classes_file) if classes_file else None
    pictures, labels = matched(images, masks, image_suffix, mask_suffix)
    names = sorted(pictures)
    looked = _look(
        [pictures[name] for name in names], [labels[name] for name in names], ignore, classes
    )
    pixels, ignored = looked[:MOST_CLASSES], int(looked[VOID])
    if not pixels.any():
        raise InputError(
            f"{one_line(masks)}: every pixel of its label images is {ignore}, which is ignored"
        )
    count = int(np.flatnonzero(pixels)[-1]) + 1
    if count == 1 and (ignored or classes is None):
        raise InputError(
            f"{one_line(masks)}: its label images hold no class but the first"
            + (f", and {ignored:,} pixels of {VOID} or {ignore}, which are ignored" * bool(ignored))
            + "; at least two are needed, numbered 0, 1, … (masks of 0 and 255 have to be written "
            "with 1 in place of 255)"
        )
    if classes is None:
        classes = tuple(map(str, range(count)))
        _doubt(masks, pixels[:count])
    return Pairs(
        images=tuple(pictures[name] for name in names),
        masks=tuple(labels[name] for name in names),
        names=tuple(names),
        classes=classes,
        pixels=tuple(map(int, pixels[: len(classes)])),
        ignored=ignored,
        ignore=ignore,
        bounds=bounds,
    )


def _doubt(masks: Path, pixels: np.ndarray) -> None:
    """Warn where most numbers up to the largest are never used: colours or grey levels look so."""
    used = np.flatnonzero(pixels)
    if 2 * len(used) < len(pixels):
        logging.getLogger("densessl").warning(
            "%s: its label images hold %d values up to %d (%s, …), which makes %d classes, most of "
            "them without a pixel; are these grey levels, and not class numbers?",
            one_line(masks),
            len(used),
            used[-1],
            ", ".join(map(str, used[:5])),
            len(pixels),
        )


def agreed(*splits: Pairs) -> list[Pairs]:
    """The splits with one list of classes: the longest, where each numbered what it found."""
    longest = max((split.classes for split in splits), key=len)
    for split in splits:
        if split.classes != longest[: len(split.classes)]:
            raise InputError(f"the splits name other classes: {split.classes[:5]}, {longest[:5]}")
    return [
        replace(
            split,
            classes=longest,
            pixels=split.pixels + (0,) * (len(longest) - len(split.pixels)),
        )
        for split in splits
    ]


def _class_names(file: str | os.PathLike) -> tuple[str, ...]:
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{one_line(file)}, the list of classes, cannot be read: {why}") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 2 <= len(names) <= MOST_CLASSES:
        raise InputError(
            f"{one_line(file)} names {len(names)} classes; allowed: 2 to {MOST_CLASSES}, one a line"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{one_line(file)} names the class '{twice[0]}' twice")
    return names


def _look(pictures, masks, ignore: int, classes: Sequence[str] | None) -> np.ndarray:
    """How many pixels have each value, 0 to 255 (ignored); InputError for the first that is wrong.

    All are read before that, so that the message can say how many are.
    """
    counts = np.zeros(VOID + 1, np.int64)
    wrong: list[str] = []
    look = partial(_look_at, ignore=ignore, classes=classes)
    pool = ThreadPoolExecutor(min(THREADS, limits.cores()))
    try:
        for found in track(pool.map(look, pictures, masks), "label images", len(masks)):
            if isinstance(found, str):
                wrong.append(found)
            else:
                counts += found
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for those that are being read alone
    if wrong:
        more = f" ({len(wrong) - 1} more files are wrong)" if wrong[1:] else ""
        raise InputError(one_line(wrong[0] + more))
    return counts


def _look_at(image: Path, mask: Path, ignore: int, classes) -> np.ndarray | str:
    try:
        labels = read_labels(mask, ignore)
        size = size_of(image)
    except BadLabels as error:
        return str(error)
    except UnreadableImage as error:
        return f"{image} cannot be read as an image: {error}"
    if labels.shape != size[::-1]:
        turned = " as it is turned upright by EXIF" if size != size_of(image, upright=False) else ""
        return (
            f"{mask} is {labels.shape[1]}×{labels.shape[0]} pixels, but its image {image} is "
            f"{size[0]}×{size[1]}{turned}"
        )
    counts = np.bincount(labels.ravel(), minlength=VOID + 1)
    if classes is not None and counts[len(classes) : VOID].any():
        number = len(classes) + int(np.flatnonzero(counts[len(classes) :])[0])
        first = int(ignore == 0)
        return (
            f"{mask} has {counts[number]:,} pixels of value {number + first}; the list names "
            f"{len(classes)} classes, {first} to {len(classes) - 1 + first}; these and {ignore} "
            f"are allowed (if it stands for no class: {IGNORE} {number + first})"
        )
    return counts


def read_labels(mask: Path, ignore: int) -> np.ndarray:
    """A label image's class numbers, and 255 for ``ignore``, uint8 ``[H, W]``; BadLabels."""
    values = label_images.read(mask).astype(np.int32)
    ignored = (values == ignore) | (values == VOID) | (values == DEEP_VOID)
    values -= ignore == 0
    if (values[~ignored] >= VOID).any():
        value = int(values[~ignored].max()) + (ignore == 0)
        raise BadLabels(f"{mask} has pixels of value {value}; allowed: 0 to 254, and {ignore}")
    return np.where(ignored, VOID, values).astype(np.uint8)
