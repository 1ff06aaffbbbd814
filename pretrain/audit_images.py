"""Every image of a data set, decoded once in processes of their own, and what was found in numbers.

An image is read whole, decoded and hashed in one go: to read it again for its hash would cost more
than to hash those that turn out to have no copy.
"""

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from densessl.core import pool, waiting
from densessl.core.progress import Bar
from densessl.core.waiting import TIMEOUT
from densessl.decoding import (
    MAX_PIXELS,
    Range,
    Region,
    UnreadableImage,
    decode,
    find_range,
    opened,
    reasons,
    size_of,
)
from densessl.decoding.frames import FrameFile

from .options import C
from .views import ImageSource
from .views.tiles import box_of, counts

SMALL = 32  # pixels; a shorter side leaves nothing to crop
FLAT = 16  # levels of 255: an image whose channels all span fewer is nearly one colour
EDGES = (0, 32, 64, 128, 192, 224, 256, 320, 384, 512, 768, 1024, 2048)  # of the histogram
CHUNK = 32  # images a process takes at a time
ROW = np.dtype(  # of a readable image; format and mode by their numbers
    [
        ("readable", bool),
        ("length", np.int64),
        ("format", np.uint16),
        ("mode", np.uint16),
        ("width", np.int64),
        ("height", np.int64),
        ("levels", np.uint8),
        ("sha256", "S32"),
    ]
)


class AuditedImage(NamedTuple):
    """What one image is. Where it cannot be read, ``reason`` says why, and the rest is empty."""

    length: int  # bytes
    reason: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    sha256: bytes = b""
    levels: int = 0  # of 255, that the channel spans which spans most, as pretraining sees it
    values: Range | None = None  # as stored, the least and greatest; None: 8 bits


def inspect_image(
    source: ImageSource, index: int, bounds: Range | None = None, tile: int = 0
) -> AuditedImage:
    """Read and decode one image; by tiles of ``tile`` pixels (0: none) where it is too large for
    DATA.MAX_PIXELS. Errors of the machine, not of the file, are raised."""
    data = b""
    late = UnreadableImage(f"it could not be read within {TIMEOUT:g} s")
    try:
        with waiting.wait(TIMEOUT, lambda: late), reasons():
            stream = source.open(index)
            data = Path(stream).read_bytes() if isinstance(stream, str) else stream.read()
        frame = stream if isinstance(stream, FrameFile) else None
        length = frame.length if frame else len(data)
        with opened(io.BytesIO(data)) as image:
            kind, mode = "video" if frame else image.format or "", image.mode
        size = size_of(io.BytesIO(data))
        file = io.BytesIO(data)
        parts: list[io.BytesIO | Region] = [file]
        if tile and size[0] * size[1] > MAX_PIXELS:
            number = int(counts(np.array([size]), tile)[0])
            parts = [Region(file, box_of(n, size, tile)) for n in range(number)]
        seen = [_extrema(decode(part, bounds).image) for part in parts]
    except UnreadableImage as error:
        return AuditedImage(len(data), str(error))
    lows, highs = np.min(seen, 0)[:, 0], np.max(seen, 0)[:, 1]  # of R, G and B
    levels = int((highs - lows).max())
    deep = find_range(parts)
    values = (deep.least, deep.greatest) if deep else None
    digest = hashlib.sha256(data).digest()
    return AuditedImage(length, "", kind, mode, *size, digest, levels, values)


def _extrema(image: Image.Image) -> np.ndarray:
    """``[3, 2]``: the least and the greatest value of R, G and B."""
    return np.array(image.getextrema())


class AuditedImages:
    """What the images of a source are, in arrays: a million of objects would take a gigabyte.

    ``rows`` has the ROW of each, of zeros where it cannot be read; ``reasons`` says why, by the
    image's number. ``deep`` images are not of 8 bits, with values from ``least`` to ``greatest``.
    """

    def __init__(self, count: int):
        self.rows = np.zeros(count, ROW)
        self.formats: dict[str, int] = {}  # their numbers in the rows
        self.modes: dict[str, int] = {}
        self.reasons: dict[int, str] = {}
        self.deep = 0
        self.least: float | None = None
        self.greatest: float | None = None

    def add(self, first: int, images: Sequence[AuditedImage]) -> None:
        """Note what the images from number ``first`` on are."""
        for number, each in enumerate(images, first):
            self.rows["length"][number] = each.length
            if each.reason:
                self.reasons[number] = each.reason
                continue
            kind = self.formats.setdefault(each.format, len(self.formats))
            mode = self.modes.setdefault(each.mode, len(self.modes))
            size = each.width, each.height
            self.rows[number] = (True, each.length, kind, mode, *size, each.levels, each.sha256)
            if each.values is not None:
                least, greatest = each.values
                self.deep += 1
                self.least = least if self.least is None else min(self.least, least)
                self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)


def inspect_all(
    source: ImageSource, workers: int, bounds: Range | None = None, tile: int = 0
) -> AuditedImages:
    """Every image, by ``workers`` processes behind a progress bar.

    ``bounds``: the range of values that are not of 8 bits; None takes each image's own. ``tile``:
    as :func:`inspect_image` has it.
    """
    count = len(source)
    chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
    work = functools.partial(_inspect_some, source, bounds, tile)
    processes = min(workers, len(chunks))
    found = AuditedImages(count)
    # Forked processes share the names; they start before the progress bar and its thread.
    with (
        pool.results(
            work, chunks, processes, forked=True, at_once=True, option="--workers"
        ) as ready,
        Bar("images", count) as bar,
    ):
        for chunk, images in zip(chunks, ready, strict=True):
            found.add(chunk.start, images)
            unreadable = len(found.reasons)
            bar.advance(len(chunk), f"{unreadable} unreadable" if unreadable else "")
    return found


def _inspect_some(
    source: ImageSource, bounds: Range | None, tile: int, chunk: range
) -> list[AuditedImage]:
    return [inspect_image(source, index, bounds, tile) for index in chunk]


# ---- what was found ----


def summary(name: Callable[[int], str], found: AuditedImages, samples: int) -> dict:
    """The numbers of an audit, ready for JSON; sizes in pixels, of the readable images.

    ``name(number)`` is that of an image. ``samples``: as many as an epoch has; images, or tiles of
    them.
    """
    numbers = np.flatnonzero(found.rows["readable"])
    rows = found.rows[numbers]
    width, height = rows["width"], rows["height"]
    short = np.minimum(width, height)
    groups = _copies(numbers, rows["sha256"])
    counts = np.histogram(short, bins=[*EDGES, np.inf])[0].tolist()
    small, flat = numbers[short < SMALL].tolist(), numbers[rows["levels"] < FLAT].tolist()
    count = len(found.rows)
    return {
        "images": count,
        "readable": len(rows),
        "bytes": int(found.rows["length"].sum()),
        "batch_size": C.SOLVER.BATCH_SIZE,
        "steps_per_epoch": samples // C.SOLVER.BATCH_SIZE,
        "max_unreadable": C.DATA.MAX_UNREADABLE,
        "formats": _counted(rows["format"], found.formats),
        "modes": _counted(rows["mode"], found.modes),
        "width": _spread(width),
        "height": _spread(height),
        "short_side": {
            **_spread(short),
            "histogram": [
                {"from": low, "below": high, "images": images}
                for low, high, images in zip(EDGES, (*EDGES[1:], None), counts, strict=True)
            ],
        },
        "depth": {"images": found.deep, "least": found.least, "greatest": found.greatest},
        "one_colour": {"levels": FLAT, "images": len(flat), "files": list(map(name, flat))},
        "below": {"side": SMALL, "images": len(small), "files": list(map(name, small))},
        "unreadable": {
            "images": len(found.reasons),
            "files": [
                {"name": name(number), "reason": reason} for number, reason in found.reasons.items()
            ],
        },
        "duplicates": {
            "groups": len(groups),
            "images": sum(len(group) - 1 for group in groups),
            "files": [list(map(name, group)) for group in groups],
        },
    }


def _copies(numbers: np.ndarray, hashes: np.ndarray) -> list[list[int]]:
    """The numbers of the images that have one hash, of each that several have; by their first."""
    order = np.argsort(hashes, kind="stable")
    new = np.append(True, hashes[order[1:]] != hashes[order[:-1]])[: len(order)]
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=len(order))
    several = lengths > 1
    parts = zip(starts[several].tolist(), lengths[several].tolist(), strict=True)
    return sorted(numbers[order[start : start + length]].tolist() for start, length in parts)


def _counted(values: np.ndarray, known: dict[str, int]) -> dict[str, int]:
    """How often each of the ``known`` occurs by its number, the most frequent first."""
    counts = dict(zip(known, np.bincount(values, minlength=len(known)).tolist(), strict=True))
    return {
        value: counts[value] for value in sorted(counts, key=lambda each: (-counts[each], each))
    }


def _spread(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return {"min": None, "median": None, "max": None}
    return {
        "min": int(values.min()),
        "median": float(np.median(values)),
        "max": int(values.max()),
    }
