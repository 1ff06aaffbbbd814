"""A region of an image: read without the rest of its pixels, where the file's format can.

A small file of the same kind is made, of the parts that the region needs, and decoded as the whole
is; so its pixels are the same. TIFF: tiles or strips; JPEG: rows, from the restart marker above
the region or from the top, down to its end. All others are decoded whole.
"""

import os
from contextlib import ExitStack
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from . import jpeg_rows, tiff_parts
from .files import FRAGMENT, File, UnreadableImage, content_of, opened, reasons
from .orientation import Box, orientation_of, turned, turned_back

ARRAY = b"\x93NUMPY"  # begins an NPY


class Region(NamedTuple):
    """The pixels ``box`` (edges x1, y1, x2, y2) of an image: of the upright one, or as stored where
    its channels are no colours."""

    file: File
    box: Box

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


def name_of(name: str, box: Box) -> str:
    """A region as messages name it: ``slide.tif#xywh=512,0,512,512``."""
    x1, y1, x2, y2 = box
    return f"{name}{FRAGMENT}{x1},{y1},{x2 - x1},{y2 - y1}"


def prepared(
    file: "File | Region", upright: bool = True, pages: int = 1
) -> tuple[File, Box | None]:
    """What to decode, and the box to cut from it: the file itself and None, where it is no region.

    ``upright``: the decoder applies EXIF's orientation; ``pages``: of a TIFF, to keep. Raises
    UnreadableImage for a file whose structure is damaged.
    """
    if not isinstance(file, Region):
        return file, None
    with reasons(file.file), ExitStack() as stack:
        stream = _stream(file.file, stack)
        head = stream.read(4)
        if head[:2] == jpeg_rows.BEGIN:
            with opened(file.file) as image:
                size, turn = image.size, orientation_of(image) if upright else 1
            box = turned_back(file.box, size, turn)
            require_inside(box, size)
            found = jpeg_rows.cut(content_of(file.file), box)
        elif head in tiff_parts.ORDERS:
            page = next(tiff_parts.pages(stream))
            size, turn = page.size, page.number(tiff_parts.ORIENTATION, 1) if upright else 1
            box = turned_back(file.box, size, turn)
            require_inside(box, size)
            found = tiff_parts.cut(stream, box, pages)
        else:
            found = None
    if found is None:
        return file.file, file.box
    part, (left, top, right, bottom) = found
    x1, y1, x2, y2 = box
    inner = (x1 - left, y1 - top, x2 - left, y2 - top)
    return part, turned(inner, (right - left, bottom - top), turn)


def reads_regions(file: File) -> bool:
    """Whether regions of a file are read without all of its pixels, by its first bytes."""
    with reasons(file), ExitStack() as stack:
        head = _stream(file, stack).read(6)
    return head[:2] == jpeg_rows.BEGIN or head[:4] in tiff_parts.ORDERS or head == ARRAY


def _stream(file: File, stack: ExitStack) -> BinaryIO:
    """An open file at its beginning."""
    if isinstance(file, str | os.PathLike):
        return stack.enter_context(open(file, "rb"))
    file.seek(0)
    return file


def as_stored(box: Box, image: Image.Image) -> Box:
    """Where ``box`` of the upright image lies in the values of one that is loaded: Pillow turns
    those of a TIFF, and no others."""
    return turned_back(box, image.size, orientation_of(image))


def cropped(values: np.ndarray, box: Box) -> np.ndarray:
    """``box`` of the values ``[h, w, …]`` of an image; UnreadableImage where it is not in it."""
    x1, y1, x2, y2 = box
    require_inside(box, (values.shape[1], values.shape[0]))
    return np.array(values[y1:y2, x1:x2])


def require_inside(box: Box, size: tuple[int, int]) -> None:
    """Raise UnreadableImage for a box that is not in an image of ``size``."""
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]):
        raise UnreadableImage(
            f"{size[0]} x {size[1]} pixels, without the region from {x1}, {y1} to {x2}, {y2}"
        )
