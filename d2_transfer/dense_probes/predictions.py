"""What a probe predicts on some test images, kept as small pictures beside the trial's record."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from densessl.core.files import write_atomic, write_json
from densessl.probes import label_images

if TYPE_CHECKING:  # pages that show the pictures need no torch
    from torch import Tensor

    from .data import Split

FOLDER, INDEX = "predictions", "predictions.json"
EDGE = 320  # pixels of a picture's longer edge, at most
GOLDEN = 0.618033988749895  # of the circle of hues: neighbours in the list differ most
VOID, FIRST = (255, 255, 255), (122, 132, 146)  # often all that is nothing else: a calm colour


class Predictions:
    """Keeps those of ``count`` images of a split, evenly spaced over it, in ``trial/predictions``.

    For image 12 ``12_image.jpg``, and with a palette, whose indices are the classes (255: none),
    ``12_truth.png`` and ``12_predicted.png``. ``predictions.json`` has the ``classes`` and the
    ``images``, by number.
    """

    def __init__(self, trial: Path, split: Split, count: int):
        self.folder, self.split = trial / FOLDER, split
        self.numbers = spaced(len(split), count)

    def begin(self) -> None:
        """Make the folder and its list; one process does it."""
        if self.numbers:
            index = {"classes": list(self.split.classes), "images": self.numbers}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / INDEX, index)

    def keep(self, number: int, predicted: Tensor, truth: Tensor) -> None:
        """Write the pictures of an image if it is one of them; both are classes ``[H, W]``."""
        if number not in self.numbers:
            return
        self.folder.mkdir(parents=True, exist_ok=True)  # other processes write there, too
        maps = (predicted, truth)
        pictures = [_coloured(each.cpu().numpy().astype(np.uint8)) for each in maps]
        image = self.split.open(number)
        assert isinstance(image, Image.Image)  # as channels.settle saw
        image = image.resize(smaller(image.size), Image.Resampling.LANCZOS)
        for part, picture in zip(("predicted", "truth"), pictures, strict=True):
            self._write(number, part, picture, "PNG")
        self._write(number, "image", image, "JPEG")

    def _write(self, number: int, part: str, picture: Image.Image, kind: str) -> None:
        path = self.folder / name(number, part)
        write_atomic(path, lambda stream: picture.save(stream, format=kind))


def name(number: int, part: str) -> str:
    """The file of a part of an image: ``image``, ``truth`` or ``predicted``."""
    return f"{number}_{part}.{'jpg' if part == 'image' else 'png'}"


def spaced(length: int, count: int) -> list[int]:
    """``count`` numbers below ``length``, evenly spaced; all of them where there are no more."""
    count = min(count, length)
    return [(2 * nth + 1) * length // (2 * count) for nth in range(count)]


def smaller(size: tuple[int, int]) -> tuple[int, int]:
    """The size with a longer edge of at most EDGE."""
    share = min(EDGE / max(size), 1.0)
    return max(round(size[0] * share), 1), max(round(size[1] * share), 1)


def colour(label: int) -> tuple[int, int, int]:
    """A class's colour; that of none is white."""
    if label in (label_images.VOID, 0):
        return FIRST if label == 0 else VOID
    light, strong = ((0.5, 0.65), (0.3, 0.7), (0.7, 0.6))[label % 3]
    red, green, blue = colorsys.hls_to_rgb(label * GOLDEN % 1, light, strong)
    return round(255 * red), round(255 * green), round(255 * blue)


def _coloured(labels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette([part for label in range(256) for part in colour(label)])
    return picture.resize(smaller(picture.size), Image.Resampling.NEAREST)
