"""Large images as tiles: each counts as the tiles that cover it, and a sample reads its tile alone.

All tiles of an image have one size: those at the right and lower edge begin further in, and share
pixels with their neighbours. What would be left of a grid there may be a sliver of a few pixels,
which shows nothing, yet would be seen as often as every other tile.
"""

import hashlib
import logging
from functools import partial
from typing import BinaryIO, cast

import numpy as np
from fvcore.common.config import CfgNode

from densessl.core import pool, waiting
from densessl.core.errors import EnvironmentLacks
from densessl.core.names import one_line
from densessl.core.progress import Bar
from densessl.core.units import many
from densessl.core.waiting import TIMEOUT
from densessl.decoding import COLOURS, Region, UnreadableImage, reasons, size_of
from densessl.decoding.channel_files import ChannelFiles
from densessl.decoding.channels import stored_size
from densessl.decoding.files import File
from densessl.decoding.orientation import Box
from densessl.decoding.regions import name_of, reads_regions

from .sources import ImageSource, part_of

CHUNK = 16  # headers that a process reads at a time
WORKERS = 4  # processes that read them, unless DATA.WORKERS says how many

logger = logging.getLogger("densessl")


class TiledSource(ImageSource):
    """The tiles of ``side`` pixels of every image of ``whole`` that is larger; others as they are.

    ``sizes [n, 2]``: width and height of each, 0 where its header cannot be read. Tiles lie row by
    row, after those of the image before.
    """

    def __init__(self, whole: ImageSource, side: int, sizes: np.ndarray):
        self.whole, self.side, self.sizes = whole, side, sizes.astype(np.int64)
        self.root, self.where, self.left_out = whole.root, whole.where, whole.left_out
        self._ends = np.cumsum(counts(self.sizes, side))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _find(self, index: int) -> tuple[int, Box | None]:
        """The image of a tile, and its box; None of an image that is one by itself."""
        number, tile = part_of(self._ends, index)
        width, height = self.sizes[number].tolist()
        if max(width, height) <= self.side:
            return number, None
        return number, box_of(tile, (width, height), self.side)

    def name(self, index: int) -> str:
        number, box = self._find(index)
        name = self.whole.name(number)
        return name_of(name, box) if box else name

    def path(self, index: int) -> str:
        number, box = self._find(index)
        path = self.whole.path(number)
        return name_of(path, box) if box else path

    def open(self, index: int) -> str | BinaryIO:
        return self.whole.open(self._find(index)[0])

    def sample(self, index: int) -> str | BinaryIO | Region | ChannelFiles:
        number, box = self._find(index)
        file = self.whole.sample(number)
        if box is None or isinstance(file, Region):
            return file
        return file.region(box) if isinstance(file, ChannelFiles) else Region(file, box)

    def fingerprint(self) -> str:
        """A SHA-256 of the images' own, of their sizes and of the tiles' side."""
        digest = hashlib.sha256(f"{self.whole.fingerprint()} {self.side}".encode())
        digest.update(self.sizes.astype("<i8").tobytes())
        return digest.hexdigest()


def counts(sizes: np.ndarray, side: int) -> np.ndarray:
    """How many tiles cover each image of ``sizes [n, 2]``, 1 or more."""
    return np.maximum(-(-sizes // side), 1).prod(1)


def box_of(tile: int, size: tuple[int, int], side: int) -> Box:
    """The box of tile number ``tile``, row by row, of an image of ``size`` (width, height)."""
    row, column = divmod(tile, -(-size[0] // side))
    w, h = min(side, size[0]), min(side, size[1])
    x, y = min(column * side, size[0] - w), min(row * side, size[1] - h)
    return x, y, x + w, y + h


def tiled(whole: ImageSource, data: CfgNode) -> TiledSource:
    """The images of ``whole`` in tiles of ``DATA.TILE`` pixels, by the sizes in their headers."""
    side = data.TILE
    channels, workers = data.get("CHANNELS", COLOURS), data.get("WORKERS", WORKERS)
    found = read_headers(whole, channels, workers, data.get("TIMEOUT", TIMEOUT))
    large = found[:, :2].max(1) > side
    source = TiledSource(whole, side, found[:, :2])
    logger.info(
        "%s of %d px (DATA.TILE) from %s; larger than a tile: %d",
        many(len(source), "tile"),
        side,
        many(len(whole), "image"),
        large.sum(),
    )
    slow = np.flatnonzero(large & (found[:, 2] == 0))
    if len(slow):
        logger.warning(
            "%s can only be decoded whole, for each of its tiles anew (%s of that kind); TIFF, "
            "JPEG and NPY are read by tiles",
            one_line(whole.path(int(slow[0]))),
            many(len(slow), "image"),
        )
    return source


def read_headers(source: ImageSource, channels: int, workers: int, seconds: float) -> np.ndarray:
    """``[n, 3]``: width and height of each image, and whether regions of it can be read alone; 0
    where the header cannot be read.

    Raises EnvironmentLacks where one takes more than ``seconds`` (0: no limit): of which images
    there are tiles must not depend on the machine.
    """
    count = len(source)
    chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
    work = partial(_headers, source, channels, seconds)
    found = np.zeros((count, 3), dtype=np.int64)
    # Forked processes share the names; they start before the progress bar and its thread.
    with (
        pool.results(
            work,
            chunks,
            min(workers, len(chunks)),
            forked=True,
            at_once=True,
            option="DATA.WORKERS",
        ) as ready,
        Bar("sizes of the images", count) as bar,
    ):
        for chunk, rows in zip(chunks, ready, strict=True):
            found[chunk.start : chunk.stop] = rows
            bar.advance(len(chunk))
    return found


def _headers(
    source: ImageSource, channels: int, seconds: float, chunk: range
) -> list[tuple[int, int, int]]:
    return [_header(source, channels, seconds, index) for index in chunk]


def _header(source: ImageSource, channels: int, seconds: float, index: int) -> tuple[int, int, int]:
    late = EnvironmentLacks(
        f"the header of {one_line(source.path(index))} has not been read within {seconds:g} s "
        "(DATA.TIMEOUT; 0: no limit); see whether its disk or network mount answers"
    )
    try:
        with waiting.wait(seconds, lambda: late), reasons():
            found = source.sample(index)
            if not isinstance(found, ChannelFiles):
                return _facts(cast(File, found), channels, channels == COLOURS)
            facts = {_facts(cast(File, file), 1, upright=False) for file in found.files}
            sizes = {(width, height) for width, height, _ in facts}
            return (*sizes.pop(), min(each[2] for each in facts)) if len(sizes) == 1 else (0, 0, 0)
    except UnreadableImage:  # said where the image is used
        return 0, 0, 0


def _facts(file: File, channels: int, upright: bool) -> tuple[int, int, int]:
    size = None if upright else stored_size(file, channels)
    return *(size or size_of(file, upright)), int(reads_regions(file))
