"""Large images cut into windows, each an image of its own; what they predict is merged again."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor

from densessl import probes
from densessl.core.errors import InputError
from densessl.decoding.channels import Planes
from densessl.probes import label_images

from .. import windows
from .data import Split


@dataclass(frozen=True, kw_only=True)
class Windows(Split):
    """The windows of a split's images: image by image, row by row, each with a number as an image
    has. Its label image has no class where an earlier window of the image has one: what is learnt
    from windows is learnt from each pixel once.

    ``numbers [n]``: of their images in ``source``. ``boxes [n, 4]``: left, top, right, bottom, in
    pixels of the image's file, of ``sizes [n, 2]``, width, height. ``fresh [n, 2]``: the first
    column and row of a window that no earlier one has. ``window``: side and stride.
    """

    source: Split
    window: tuple[int, int]
    numbers: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    fresh: np.ndarray
    held: dict[Callable, tuple[int, Any]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def whole(self) -> Split:
        return self.source

    def images_of(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.numbers[np.asarray(numbers, dtype=np.int64)]

    def open(self, index: int) -> Image.Image | Planes:
        """What the window shows, as the image would be opened."""
        image = self._of_source(Split.open, index)
        # A file that is read at reduced scale gives an image of fewer pixels.
        scale = np.divide(image.size, self.sizes[index])
        box = (self.boxes[index] * np.tile(scale, 2)).round().astype(int).tolist()
        if isinstance(image, Image.Image):
            return image.crop(box)
        left, top, right, bottom = box
        return Planes(image.values[top:bottom, left:right])

    def labels_of(self, index: int) -> Tensor:
        left, top, right, bottom = self.boxes[index]
        labels = self._of_source(Split.labels_of, index)[top:bottom, left:right].clone()
        column, row = self.fresh[index]
        labels[:row], labels[:, :column] = label_images.VOID, label_images.VOID
        return labels

    def fingerprint(self) -> str:
        text = f"{self.source.fingerprint()} {self.window}"
        return hashlib.sha256(text.encode()).hexdigest()

    def of_images(self) -> list[range]:
        """The numbers of each image's windows."""
        first = np.searchsorted(self.numbers, np.arange(len(self.source) + 1)).tolist()
        return [range(*both) for both in zip(first, first[1:], strict=False)]

    def _of_source(self, what: Callable, index: int):
        """Of the window's image, which is read once for all windows that follow each other."""
        number = int(self.numbers[index])
        if self.held.get(what, (None,))[0] != number:
            self.held[what] = (number, what(self.source, number))
        return self.held[what][1]


def cut(split: Split, cfg: CfgNode) -> Split:
    """The split as TEST.SLIDING_WINDOW says: as it is, or its images' windows."""
    chosen = windows.of(cfg)
    if chosen is None:
        return split
    numbers, boxes, sizes, fresh = [], [], [], []
    for number in range(len(split)):
        width, height = size = _size(split, number)
        row = 0  # the first that no window has
        for top, bottom in windows.spans(height, *chosen):
            column = 0
            for left, right in windows.spans(width, *chosen):
                numbers.append(number)
                boxes.append((left, top, right, bottom))
                sizes.append(size)
                fresh.append((column - left if column else 0, row - top if row else 0))
                column = right
            row = bottom
    return Windows(
        where=f"windows of {split.where}",
        images=split.images[numbers],
        labels=split.labels[numbers],
        classes=split.classes,
        source=split,
        window=chosen,
        numbers=np.array(numbers),
        boxes=np.array(boxes),
        sizes=np.array(sizes),
        fresh=np.array(fresh),
    )


def _size(split: Split, number: int) -> tuple[int, int]:
    try:
        return label_images.picture_size(Path(split.path(number)))
    except label_images.BadLabels as error:
        raise InputError(f"{split.where}: {error}") from None


def bands(
    maps: Iterator[Sequence[Tensor]], size: tuple[int, int], window: tuple[int, int] | None
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Rows of an image of ``size`` (h, w), with their pixels' classes by each predictor.

    ``maps``: of each window, in order, the logits or probabilities ``[1, classes, h, w]`` by each
    predictor. They are upsampled to the window; where windows overlap the class is that of the
    largest mean. Never more than the rows of one window are held.
    """
    height, width = size
    if window is None:
        found = [probes.upsampled(each, size)[0] for each in next(maps)]
        yield slice(0, height), [probes.largest(each, 0) for each in found]
        return
    rows = windows.spans(height, *window)
    begun: list[Tensor] = []  # sums of the rows that the windows above have, too
    for (top, bottom), end in zip(rows, [*(top for top, _ in rows[1:]), height], strict=True):
        sums: list[Tensor] = []
        for left, right in windows.spans(width, *window):
            shape = (bottom - top, right - left)
            found = [probes.upsampled(each, shape)[0] for each in next(maps)]
            if not sums:
                sums = [each.new_zeros(len(each), shape[0], width) for each in found]
                for each, above in zip(sums, begun, strict=False):
                    each[:, : above.shape[1]] = above
            for each, part in zip(sums, found, strict=True):
                each[:, :, left:right] += part
        # At a pixel all classes have as many windows: the largest sum is the largest mean.
        yield slice(top, end), [probes.largest(each[:, : end - top], 0) for each in sums]
        begun = [each[:, end - top :] for each in sums]
