"""Label images: PNG files whose pixels are numbers of classes."""

from pathlib import Path

import numpy as np

from densessl.decoding import UnreadableImage, opened, require_decodable, size_of

VOID = 255  # a pixel that belongs to no class
COLOURS = {"RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"}


class BadLabels(ValueError):
    """A label image is not what it should be; the message names the file and the value."""


def read(path: Path, palette: bool = True) -> np.ndarray:
    """The numbers in a label image, [height, width]: uint8, or uint16 of 16-bit images.

    Of a palette image its indices, not its colours; of 1 bit 0 and 1. Raises BadLabels for pictures
    in colour, for files that are no images, and, unless ``palette``, for palette images:
    Detectron2's own readers turn their colours into grey levels.
    """
    try:
        with opened(path) as picture:
            mode = picture.mode
            require_decodable(picture)
            values = None if mode in COLOURS else np.asarray(picture)
    except UnreadableImage as error:
        raise _unreadable(path, error) from None
    if values is None:
        raise BadLabels(
            f"{path} is a picture in colour ({mode}), not one of class numbers; a label image has "
            "one channel, grey or palette, whose values are 0, 1, …"
        )
    if mode == "1":
        return values.astype(np.uint8)
    if mode == "L" or (mode == "P" and palette):
        return values
    if mode == "P":
        raise BadLabels(f"{path} is a palette image; allowed: 8 bits of class numbers")
    if mode.startswith("I") and values.min() >= 0 and values.max() < 2**16:
        return values.astype(np.uint16)
    raise BadLabels(f"{path} is an image of mode {mode}; allowed: 8 or 16 bits of class numbers")


def check(
    path: Path, values: np.ndarray, classes: int, image: Path | None = None, void: bool = True
) -> None:
    """BadLabels unless all ``values`` are 0 to ``classes`` - 1 (or 255, with ``void``).

    ``image``: the picture of these labels, which must have their size.
    """
    counts = np.bincount(values.ravel(), minlength=VOID + 1)
    wrong = np.flatnonzero(counts[classes:]) + classes
    if void:
        wrong = wrong[wrong != VOID]
    if len(wrong):
        allowed = f"0 to {classes - 1}" + (f" and {VOID}" if void else "")
        raise BadLabels(
            f"{path} has pixels of value {', '.join(map(str, wrong[:3]))}; allowed: {allowed}"
        )
    if image is not None:
        width, height = picture_size(image)
        if values.shape != (height, width):
            labels = f"{values.shape[1]}×{values.shape[0]}"
            raise BadLabels(f"{path} is {labels} pixels, but its image {image} is {width}×{height}")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of an upright picture, from its header; BadLabels if it is none."""
    try:
        return size_of(path)
    except UnreadableImage as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, reason: UnreadableImage) -> BadLabels:
    if not path.exists():
        return BadLabels(f"{path} is not there")
    return BadLabels(f"{path} cannot be read as an image: {reason}")
