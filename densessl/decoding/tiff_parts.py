"""A TIFF of some tiles or strips of another one, as they are stored, with the tags to read them.

So a region is decoded by whatever decodes the file, from a file of its own tiles alone. Strips
that are not compressed are cut into rows.
"""

import io
import os
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
NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q"}
LONG = 4
WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, ORIENTATION = 256, 257, 258, 259, 262, 274
SAMPLES, PLANES, ROWS, TILE_WIDTH, TILE_HEIGHT = 277, 284, 278, 322, 323
PREDICTOR, FORMAT = 317, 339
STRIPS, TILES = (273, 279), (324, 325)  # places, numbers of bytes
KEPT = {WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, ORIENTATION, SAMPLES, PLANES, ROWS}
KEPT |= {TILE_WIDTH, TILE_HEIGHT, PREDICTOR, FORMAT, *STRIPS, *TILES}
# fill order, fax, palette, inks, extra samples, JPEG's tables, YCbCr
KEPT |= {266, 292, 293, 320, 332, 334, 338, 347, 529, 530, 531, 532}
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
        return next(iter(self.numbers(tag, default)), default)

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


@dataclass
class Grid:
    """Where the data of a page lie: in tiles, strips, or rows of strips that are not compressed."""

    across: int  # pixels of a part
    down: int
    columns: int  # parts of a plane
    rows: int
    planes: int  # 1, or as many as channels
    strip: int  # parts in one stored strip: above 1 for its rows alone
    places: tuple[int, ...]  # in the file, of what is stored, plane by plane, row by row
    lengths: tuple[int, ...]

    def find(self, plane: int, y: int, x: int) -> tuple[int, int]:
        """Place and number of bytes of a part."""
        stored = -(-self.rows // self.strip)
        number = (plane * stored + y // self.strip) * self.columns + x
        if self.strip == 1:
            return self.places[number], self.lengths[number]
        rows = min(self.strip, self.rows - y // self.strip * self.strip)
        row = self.lengths[number] // rows
        return self.places[number] + y % self.strip * row, row


def _grid(page: Page) -> Grid | None:
    """None where no part can be told from the others."""
    width, height = page.size
    tiled = TILES[0] in page.tags
    across, down = page.number(TILE_WIDTH), page.number(TILE_HEIGHT)
    if not tiled:
        across, down = width, min(page.number(ROWS, height), height)
    places, lengths = (page.numbers(tag) for tag in (TILES if tiled else STRIPS))
    if not (across and down) or page.number(COMPRESSION, NONE) == OLD_JPEG:
        return None
    planes = page.number(SAMPLES, 1) if page.number(PLANES, 1) == 2 else 1
    columns, rows, strip = -(-width // across), -(-height // down), 1
    if not len(places) == len(lengths) == columns * rows * planes:
        return None
    plain = page.number(COMPRESSION, NONE) == NONE and page.number(COLOURS) != YCBCR
    if plain and not tiled and _has_whole_rows(page, planes, down, lengths):
        strip, down, rows = down, 1, height
    return Grid(across, down, columns, rows, planes, strip, places, lengths)


def _has_whole_rows(page: Page, planes: int, down: int, lengths: tuple[int, ...]) -> bool:
    """Whether strips of ``down`` rows that are not compressed have as many bytes as these rows."""
    width, height = page.size
    bits = page.numbers(BITS, 1)
    row = -(-width * bits[0] * (page.number(SAMPLES, 1) // planes) // 8)
    rows = [min(down, height - y) for y in range(0, height, down)] * planes
    expected = [row * each for each in rows]
    return len(set(bits)) == 1 and list(lengths) == expected


def _part(stream: BinaryIO, page: Page, box: Box) -> tuple[Page, list[bytes], Box] | None:
    """The tags and the data of the parts of a page that hold ``box``, and what they cover."""
    grid = _grid(page)
    if grid is None:
        return None
    left, top, right, bottom = box
    columns = range(left // grid.across, -(-right // grid.across))
    rows = range(top // grid.down, -(-bottom // grid.down))
    width, height = page.size
    area = (
        columns.start * grid.across,
        rows.start * grid.down,
        min(columns.stop * grid.across, width),
        min(rows.stop * grid.down, height),
    )
    if area == (0, 0, width, height):
        return None
    data = []
    for where in product(range(grid.planes), rows, columns):
        place, length = grid.find(*where)
        stream.seek(place)
        data.append(_read(stream, length))
    values = {WIDTH: area[2] - area[0], HEIGHT: area[3] - area[1]}
    if TILES[0] not in page.tags:
        values[ROWS] = grid.down
    new = {tag: (LONG, 1, struct.pack(f"{page.order}I", each)) for tag, each in values.items()}
    return Page(page.order, page.tags | new), data, area


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
    """So many bytes; where a damaged file asks for more than it has, none are made room for."""
    here = stream.tell()
    left = stream.seek(0, os.SEEK_END) - here
    if size > left:
        raise UnreadableImage(f"a TIFF that is cut off: {size} bytes at {here} are not there")
    stream.seek(here)
    return stream.read(size)
