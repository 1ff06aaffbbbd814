"""A JPEG of some rows of another one: as many of its MCU rows as a region needs, and its header.

Where a restart marker stands before a row, the data begin there; elsewhere they begin with the
image, as its codes can only be read from the start. In both cases decoding ends below the region.
One more row on either side is kept, as colours are interpolated between rows.
"""

import io
import itertools
import math
import re
from collections.abc import Iterator

from .orientation import Box

BEGIN, END = b"\xff\xd8", b"\xff\xd9"
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2  # frames that are read here
INTERVAL, SCAN = 0xDD, 0xDA
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
BLOCK = 8  # pixels
MARGIN = 1  # MCU rows


def cut(data: bytes, box: Box) -> tuple[io.BytesIO, Box] | None:
    """A JPEG of the rows that hold ``box``, and its place in the whole; None where it is all of
    it, and for kinds that are not read here (lossless, arithmetic)."""
    segments = dict(_segments(data))
    kind = next((each for each in segments if each in FRAMES), None)
    if kind is None or kind not in (*SEQUENTIAL, PROGRESSIVE) or SCAN not in segments:
        return None
    frame, scan = segments[kind], segments[SCAN]
    height, width = (int.from_bytes(data[frame + at : frame + at + 2], "big") for at in (5, 7))
    count = data[frame + 9]
    factors = [divmod(each, 16) for each in data[frame + 11 : frame + 10 + 3 * count : 3]]
    across, down = (BLOCK * max(each) for each in zip(*factors, strict=True))
    if count == 1:  # its blocks stand one by one, whatever its factors are
        across = down = BLOCK
    rows = math.ceil(height / down)
    first = max(box[1] // down - MARGIN, 0)
    last = min(math.ceil(box[3] / down) + MARGIN, rows)
    header = bytearray(data[: scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")])
    body: bytes | bytearray | memoryview = b""
    if kind in SEQUENTIAL and INTERVAL in segments and data[scan + 4] == count:
        at = segments[INTERVAL] + 4
        interval = int.from_bytes(data[at : at + 2], "big")
        first, last, body = _between_restarts(
            data, len(header), interval, math.ceil(width / across), (first, last, rows)
        )
    if not body:
        first, body = 0, memoryview(data)[len(header) :]
    if (first, last) == (0, rows):
        return None
    top, bottom = first * down, min(last * down, height)
    header[frame + 5 : frame + 7] = (bottom - top).to_bytes(2, "big")
    return io.BytesIO(b"".join((header, body))), (0, top, width, bottom)


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker up to the first scan, and where it stands."""
    at = len(BEGIN)
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fills
            at += 1
            continue
        yield data[at + 1], at
        if data[at + 1] == SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _between_restarts(
    data: bytes, start: int, interval: int, across: int, wanted: tuple[int, int, int]
) -> tuple[int, int, bytes | bytearray]:
    """The codes of the rows ``wanted`` (first, last, all), of ``across`` MCUs each, and which rows
    they are: those that restart markers allow. No codes where there are no such markers."""
    first, last, rows = wanted
    if not interval:
        return first, last, b""
    step = interval // math.gcd(interval, across)  # rows between markers that begin a row
    begin = first // step * step
    end = min(math.ceil(last / step) * step, rows)
    before, until = begin * across // interval, end * across // interval
    markers = itertools.islice(RESTART.finditer(data, start), until)
    places = [found.start() for found in markers]
    numbered = all(data[at + 1] == 0xD0 + n % 8 for n, at in enumerate(places))
    if len(places) < (before if end == rows else until) or not numbered:
        return first, last, b""
    at = places[before - 1] + 2 if before else start
    body = bytearray(data[at:] if end == rows else data[at : places[until - 1]])
    for number, place in enumerate(places[before:]):
        if place - at < len(body):
            body[place - at + 1] = 0xD0 + number % 8  # they are counted from the first
    return begin, end, body if end == rows else body + END
