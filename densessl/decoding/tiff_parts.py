"""A TIFF of some tiles or strips of another one, as they are stored, with the tags to read them.

So a region is decoded by whatever decodes the file, from a file of its own tiles alone. Strips
that are not compressed are cut into rows.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import BinaryIO

from .files import UnreadableImage
from .orientation import Box

ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
BIG = (b"II+\0", b"MM\0+")  # BigTIFF
BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
BYTES |= {13: 4, 16: 8, 17: 8, 18: 8}  # of a value, by its kind
NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
LONG = 4
WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, ORIENTATION = 256, 257, 258, 259, 262, 274
SAMPLES, PLANES, ROWS, TILE_WIDTH, TILE_HEIGHT = 277, 284, 278, 322, 323
STRIPS, TILES = (273, 279), (324, 325)  # places, numbers of bytes
KEPT = {WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, ORIENTATION, SAMPLES, PLANES, ROWS}
KEPT |= {TILE_WIDTH, TILE_HEIGHT, *STRIPS, *TILES}
# fill order, fax, predictor, palette, inks, extra samples, sample format, JPEG's tables, YCbCr
KEPT |= {266, 292, 293, 317, 320, 332, 334, 338, 339, 347, 529, 530, 531, 532}
NONE, OLD_JPEG, YCBCR = 1, 6, 6


@dataclass
class Page:
    """The tags of an image that matter for its pixels: kind, number and bytes of the values."""

    order: str
    tags: dict[int, tuple[int, int, bytes]]

    def numbers(self, tag: int, default: int = 0) -> tuple[int, ...]:
        """The values of a tag."""
        if tag not in self.tags:
            return (default,)
        kind, count, data = self.tags[tag]
        return struct.unpack(f"{self.order}{count}{NUMBERS[kind]}", data)

    def number(self, tag: int, default: int = 0) -> int:
        return self.numbers(tag, default)[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width, height, as stored."""
        return self.number(WIDTH), self.number(HEIGHT)


def pages(stream: BinaryIO) -> Iterator[Page]:
    """The images of a TIFF or BigTIFF, in their order."""
    stream.seek(0)
    head = _read(stream, 8)
    order = ORDERS[head[:4]]
    kinds = ("I", "H", "HHI4s")
    if head[:4] in BIG:
        kinds = ("Q", "Q", "HHQ8s")
        head += _read(stream, 8)
    offset, count, entry = (struct.Struct(order + kind) for kind in kinds)
    (place,) = offset.unpack(head[-offset.size :])
    while place:
        stream.seek(place)
        (entries,) = count.unpack(_read(stream, count.size))
        table = _read(stream, entries * entry.size)
        (place,) = offset.unpack(_read(stream, offset.size))
        tags = {}
        for tag, kind, number, value in entry.iter_unpack(table):
            if tag not in KEPT or kind not in BYTES:
                continue
            size = BYTES[kind] * number
            if size > len(value):
                stream.seek(*offset.unpack(value))
                value = _read(stream, size)
            tags[tag] = kind, number, value[:size]
        yield Page(order, tags)


def cut(stream: BinaryIO, box: Box, most: int = 1) -> tuple[io.BytesIO, Box] | None:
    """A TIFF of the tiles or strips that hold ``box`` (as stored), and its place in the whole; None
    where that is all of it, or no such file can be made.

    Of the first page, or, where a page has one value a pixel, of as many as ``most``: channels may
    lie in pages of one size. Other pages are the same image in small.
    """
    parts: list[tuple[Page, list[bytes]]] = []
    places: set[Box] = set()
    size = (0, 0)
    for page in islice(pages(stream), most):
        if parts and page.size != size:
            break
        size = page.size
        found = _part(stream, page, box)
        if found is None:
            return None
        parts.append(found[:2])
        places.add(found[2])
        if page.number(SAMPLES, 1) > 1:
            break
    return (_written(parts), places.pop()) if len(places) == 1 else None


def _part(stream: BinaryIO, page: Page, box: Box) -> tuple[Page, list[bytes], Box] | None:
    """The tags and the data of the tiles or strips of a page, and what they cover."""
    width, height = page.size
    tiled = TILES[0] in page.tags
    where, lengths = (page.numbers(tag) for tag in (TILES if tiled else STRIPS))
    strip = min(page.number(ROWS, height), height)
    across, down = (page.number(TILE_WIDTH), page.number(TILE_HEIGHT)) if tiled else (width, strip)
    compression = page.number(COMPRESSION, NONE)
    planes = page.number(SAMPLES, 1) if page.number(PLANES, 1) == 2 else 1
    columns, rows = -(-width // across), -(-height // down)
    if compression == OLD_JPEG or len(where) != columns * rows * planes:
        return None
    bits = page.numbers(BITS, 1)
    row = -(-width * bits[0] * (page.number(SAMPLES, 1) // planes) // 8)  # bytes
    by_rows = not tiled and compression == NONE and page.number(COLOURS) != YCBCR
    by_rows = by_rows and len(set(bits)) == 1
    down = 1 if by_rows else down
    left, top, right, bottom = box
    inside = range(left // across, -(-right // across))
    beside = range(top // down, -(-bottom // down))
    data, kept = [], dict(page.tags)
    for plane, y, x in product(range(planes), beside, inside):
        number = (plane * rows + (y // strip if by_rows else y)) * columns + x
        within = y % strip * row if by_rows else 0
        stream.seek(where[number] + within)
        data.append(_read(stream, row if by_rows else lengths[number]))
    area = (
        inside.start * across,
        beside.start * down,
        min(inside.stop * across, width),
        min(beside.stop * down, height),
    )
    if area == (0, 0, width, height):
        return None
    values = {WIDTH: area[2] - area[0], HEIGHT: area[3] - area[1]}
    if not tiled:
        values[ROWS] = down
    for tag, value in values.items():
        kept[tag] = LONG, 1, struct.pack(f"{page.order}I", value)
    return Page(page.order, kept), data, area


def _written(parts: list[tuple[Page, list[bytes]]]) -> io.BytesIO:
    """A TIFF of these pages, each its data before its tags."""
    order = parts[0][0].order
    file = io.BytesIO()
    file.write((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4  # where the place of the next page is to stand
    for page, data in parts:
        starts = []
        for each in data:
            starts.append(file.tell())
            file.write(each)
        tags = dict(page.tags)
        stored = TILES if TILES[0] in tags else STRIPS
        for tag, values in zip(stored, (starts, [len(each) for each in data]), strict=True):
            tags[tag] = LONG, len(values), struct.pack(f"{order}{len(values)}I", *values)
        entries = b""
        for tag, (kind, number, value) in sorted(tags.items()):
            if len(value) > 4:
                place = file.tell()
                file.write(value)
                value = struct.pack(f"{order}I", place)
            entries += struct.pack(f"{order}HHI4s", tag, kind, number, value)
        start = file.tell()
        file.write(struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
        end = file.tell()
        file.seek(link)
        file.write(struct.pack(f"{order}I", start))
        file.seek(end)
        link = end - 4
    file.seek(0)
    return file


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise UnreadableImage(f"a TIFF that is cut off: {size} bytes are not all there")
    return data
