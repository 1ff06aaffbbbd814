"""Labelled images: a split of a data set, as files or in memory."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from densessl.core.errors import InputError
from densessl.decoding import COLOURS, MAX_PIXELS, Picture, Range, UnreadableImage, decode
from densessl.decoding.channel_files import image_of
from densessl.decoding.channels import Planes, decode_channels

SAMPLED = 1000  # files whose sizes go into a fingerprint


@dataclass(frozen=True)
class Images:
    """The images of a split, by number, each with its class.

    ``names``: paths below ``root``, as bytes in one array, which loader processes share (a list of
    a million strings would be copied into each of them); empty where ``pixels [N, h, w, 3]`` holds
    the images themselves. ``labels [N]``: numbers of ``classes``. ``boxes [N, 4]``: x1, y1, x2, y2,
    which part of the file is the image (cut off where the file ends), in pixels of the upright
    file; None: all of it. ``bounds``, ``max_pixels``: as :func:`densessl.decoding.decode` has them.
    ``words``: as :mod:`densessl.decoding.channel_files`.
    """

    where: str  # what messages call it
    root: Path
    names: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    boxes: np.ndarray | None = None
    pixels: np.ndarray | None = None
    bounds: Range | None = None
    max_pixels: int = MAX_PIXELS
    channels: int = COLOURS  # others are read as they are stored
    words: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What messages and lists call an image."""
        return str(index) if self.pixels is not None else os.fsdecode(self.names[index])

    def path(self, index: int) -> str:
        """Where an image lies, for messages."""
        return str(self.root / self.name(index))

    def open(self, index: int) -> Image.Image | Planes:
        """The image as upright RGB, or its channels as stored. InputError for an unreadable one."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels[index])
        path = self.root / self.name(index)
        file = image_of(path, self.words)
        try:
            if self.channels != COLOURS:
                return decode_channels(file, self.channels, self.bounds, self.max_pixels)
            picture = decode(file, self.bounds, self.max_pixels)
        except UnreadableImage as error:
            raise InputError(f"{self.where}: {path} cannot be read: {error}") from None
        return picture.image if self.boxes is None else self._cut(picture, self.boxes[index])

    @staticmethod
    def _cut(picture: Picture, box: np.ndarray) -> Image.Image:
        image = picture.image
        x1, y1, x2, y2 = (
            round(float(edge) / scale) for edge, scale in zip(box, picture.scale * 2, strict=True)
        )
        return image.crop((max(x1, 0), max(y1, 0), min(x2, image.width), min(y2, image.height)))

    def subset(self, indices: Sequence[int] | np.ndarray) -> "Images":
        """These images alone, in this order; the classes stay."""
        indices = np.asarray(indices, np.int64)
        boxes, pixels = (
            held[indices] if held is not None and len(held) else held
            for held in (self.boxes, self.pixels)
        )
        names = self.names[indices] if len(self.names) else self.names
        labels = self.labels[indices]
        return replace(self, names=names, labels=labels, boxes=boxes, pixels=pixels)

    def by_class(self) -> list[np.ndarray]:
        """The numbers of the images of each class."""
        order = np.argsort(self.labels, kind="stable")
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return np.split(order, np.cumsum(counts)[:-1])

    def fingerprint(self) -> str:
        """A SHA-256 over names, labels and the sizes of some files (or the pixels), not the place.

        Sizes set sets apart whose names and labels are alike, as those of scenes may be.
        """
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(np.ascontiguousarray(self.labels, np.int64).tobytes())
        if self.pixels is not None:
            digest.update(np.ascontiguousarray(self.pixels).tobytes())
            return digest.hexdigest()
        digest.update(b"\0".join(self.names.tolist()))
        if self.boxes is not None:
            digest.update(np.ascontiguousarray(self.boxes).tobytes())
        for index in np.linspace(0, len(self) - 1, min(len(self), SAMPLED)).astype(int):
            digest.update(b"%d " % os.path.getsize(self.root / self.name(index)))
        return digest.hexdigest()


def packed(names: Sequence[str]) -> np.ndarray:
    """Paths as one array of bytes."""
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


def draw_of_each_class(
    images: Images, share: float, seed: Sequence[int], keep: int = 0
) -> np.ndarray:
    """The numbers of ``share`` of each class's images, at least one of each, rising.

    ``keep`` of each stay behind in any case. A function of the seed, the class and how many images
    it has.
    """
    drawn = [np.empty(0, np.int64)]
    for label, numbers in enumerate(images.by_class()):
        rng = np.random.default_rng((*seed, label))
        count = min(max(1, round(share * len(numbers))), len(numbers) - keep)
        drawn.append(rng.permutation(numbers)[: max(count, 0)])
    return np.sort(np.concatenate(drawn))
