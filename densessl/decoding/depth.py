"""Images of more than 8 bits a channel: their values, and these as 8 bits.

Pillow keeps one channel of 16 or 32 bits (modes I;16, I, F), and of several channels of 16 bits
the upper eight. The lower eight come from a second reading that takes the two bytes of a value for
each other's.
"""

import os
import re
import sys
from typing import Any

import numpy as np
from PIL import Image

from .files import File
from .given import Range

MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
COLOUR = re.compile(r"(?:RGB|RGBA|RGBX);16([LBN])")
OTHER_END = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
SAMPLE_FORMAT, UNSIGNED = 339, 1  # TIFF
ROWS = 1 << 22  # values that are scaled at a time


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a channel, by its header."""
    return image.mode in MODES or _sixteen_bit_colour(image) is not None


def read_values(image: Image.Image, file: File) -> np.ndarray:
    """The values of an image of more than 8 bits, as stored: ``[h, w]``, or ``[h, w, 3]`` of RGB.

    Integers or float32. ``file``: what the image was opened from; it is read again for colour.
    """
    if image.mode in MODES:
        values = np.asarray(image)
        unsigned = getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED
        if image.format == "TIFF" and values.dtype == np.int32 and unsigned:
            return values.view(np.uint32)  # Pillow takes them for signed
        return values
    high = np.asarray(image.convert("RGB"))
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as stream:
            low = _lower_bytes(stream)
    else:
        low = _lower_bytes(file)
    return (high.astype(np.uint16) << 8) | low


def _lower_bytes(stream: Any) -> np.ndarray:
    stream.seek(0)
    with Image.open(stream) as again:
        end = str(_sixteen_bit_colour(again))
        again.tile = [_with_mode(tile, end) for tile in again.tile]
        return np.asarray(again.convert("RGB"))


def _sixteen_bit_colour(image: Any) -> str | None:
    """The order of bytes (L, B, N) of an opened image with several channels of 16 bits.

    None for others, also for CMYK, whose colours are made of the upper bytes.
    """
    if image.mode not in ("RGB", "RGBA") or not image.tile:
        return None
    found = COLOUR.fullmatch(_raw_mode(image.tile[0][3]))
    return found[1] if found else None


def _raw_mode(arguments: object) -> str:
    """How a decoder of Pillow is told to take the bytes."""
    if isinstance(arguments, tuple) and arguments:
        arguments = arguments[0]
    return arguments if isinstance(arguments, str) else ""


def _with_mode(tile: Any, end: str) -> Any:
    """The same part of an image with the two bytes of a value exchanged."""
    codec, extents, offset, arguments = tile
    mode = _raw_mode(arguments)
    swapped = f"{mode[:-1]}{OTHER_END[end]}"
    arguments = swapped if isinstance(arguments, str) else (swapped, *arguments[1:])
    if hasattr(tile, "_replace"):  # Pillow 11 and later ask for their fields by name
        return tile._replace(args=arguments)
    return codec, extents, offset, arguments


def to_bytes(values: np.ndarray, bounds: Range) -> np.ndarray:
    """Values as uint8 of the same shape: the range becomes 0 to 255, what lies outside is clipped.

    A value that is no number (NaN) is 0. Rounded, so that k · 257 in 16 bits is k in 8.
    """
    low, high = bounds
    scale = 255 / (high - low)
    if values.dtype in (np.uint8, np.uint16):
        table = np.arange(np.iinfo(values.dtype).max + 1, dtype=np.float64)
        return _scaled(table, low, scale)[values]
    out = np.empty(values.shape, np.uint8)
    rows = max(1, ROWS // max(1, values[0].size))
    for first in range(0, len(values), rows):
        part = values[first : first + rows].astype(np.float64)
        out[first : first + rows] = _scaled(part, low, scale)
    return out


def _scaled(values: np.ndarray, low: float, scale: float) -> np.ndarray:
    scaled = np.rint((values - low) * scale)
    return np.nan_to_num(scaled, nan=0).clip(0, 255).astype(np.uint8)
