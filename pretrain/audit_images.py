"""Every image of a data set, decoded once in processes of their own, and what was found in numbers.

An image is read whole, decoded and hashed in one go: to read it again for its hash would cost more
than to hash those that turn out to have no copy.
"""

import functools
import hashlib
import io
from collections import Counter
from collections.abc import Iterable
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

from .options import C
from .views import ImageSource
from .views.tiles import box_of, counts

SMALL = 32  # pixels; a shorter side leaves nothing to crop
FLAT = 16  # levels of 255: an image whose channels all span fewer is nearly one colour
EDGES = (0, 32, 64, 128, 192, 224, 256, 320, 384, 512, 768, 1024, 2048)  # of the histogram
CHUNK = 32  # images a process takes at a time


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
        with opened(io.BytesIO(data)) as image:
            kind, mode = image.format or "", image.mode
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
    return AuditedImage(len(data), "", kind, mode, *size, digest, levels, values)


def _extrema(image: Image.Image) -> np.ndarray:
    """``[3, 2]``: the least and the greatest value of R, G and B."""
    return np.array(image.getextrema())


def inspect_all(
    source: ImageSource, workers: int, bounds: Range | None = None, tile: int = 0
) -> list[AuditedImage]:
    """Every image, in the source's order, by ``workers`` processes behind a progress bar.

    ``bounds``: the range of values that are not of 8 bits; None takes each image's own. ``tile``:
    as :func:`inspect_image` has it.
    """
    count = len(source)
    chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
    work = functools.partial(_inspect_some, source, bounds, tile)
    processes = min(workers, len(chunks))
    results = []
    # Forked processes share the names; they start before the progress bar and its thread.
    with (
        pool.results(
            work, chunks, processes, forked=True, at_once=True, option="--workers"
        ) as ready,
        Bar("images", count) as bar,
    ):
        unreadable = 0
        for chunk in ready:
            results += chunk
            unreadable += sum(bool(each.reason) for each in chunk)
            bar.advance(len(chunk), f"{unreadable} unreadable" if unreadable else "")
    return results


def _inspect_some(
    source: ImageSource, bounds: Range | None, tile: int, chunk: range
) -> list[AuditedImage]:
    return [inspect_image(source, index, bounds, tile) for index in chunk]


# ---- what was found ----


def summary(names: list[str], found: list[AuditedImage], samples: int) -> dict:
    """The numbers of an audit, ready for JSON; sizes in pixels, of the readable images.

    ``samples``: as many as an epoch has; images, or tiles of them.
    """
    readable = [number for number, each in enumerate(found) if not each.reason]
    width = np.array([found[number].width for number in readable], dtype=np.int64)
    height = np.array([found[number].height for number in readable], dtype=np.int64)
    short = np.minimum(width, height)
    copies: dict[bytes, list[str]] = {}
    for number in readable:
        copies.setdefault(found[number].sha256, []).append(names[number])
    groups = [group for group in copies.values() if len(group) > 1]
    counts = np.histogram(short, bins=[*EDGES, np.inf])[0].tolist()
    return {
        "images": len(found),
        "readable": len(readable),
        "bytes": sum(each.length for each in found),
        "batch_size": C.SOLVER.BATCH_SIZE,
        "steps_per_epoch": samples // C.SOLVER.BATCH_SIZE,
        "max_unreadable": C.DATA.MAX_UNREADABLE,
        "formats": _counted(found[number].format for number in readable),
        "modes": _counted(found[number].mode for number in readable),
        "width": _spread(width),
        "height": _spread(height),
        "short_side": {
            **_spread(short),
            "histogram": [
                {"from": low, "below": high, "images": count}
                for low, high, count in zip(EDGES, (*EDGES[1:], None), counts, strict=True)
            ],
        },
        "depth": _depth([found[number].values for number in readable]),
        "one_colour": {
            "levels": FLAT,
            "images": sum(found[number].levels < FLAT for number in readable),
            "files": [names[number] for number in readable if found[number].levels < FLAT],
        },
        "below": {
            "side": SMALL,
            "images": int((short < SMALL).sum()),
            "files": [
                names[number]
                for number, side in zip(readable, short.tolist(), strict=True)
                if side < SMALL
            ],
        },
        "unreadable": {
            "images": len(found) - len(readable),
            "files": [
                {"name": names[number], "reason": each.reason}
                for number, each in enumerate(found)
                if each.reason
            ],
        },
        "duplicates": {
            "groups": len(groups),
            "images": sum(len(group) - 1 for group in groups),
            "files": groups,
        },
    }


def _depth(values: list[Range | None]) -> dict:
    """Of the images that are not of 8 bits: how many, and the least and greatest value."""
    deep = [each for each in values if each]
    return {
        "images": len(deep),
        "least": min((low for low, _ in deep), default=None),
        "greatest": max((high for _, high in deep), default=None),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    counts = Counter(values)
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
