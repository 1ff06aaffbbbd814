"""Writers of what Pillow reads but does not write: several channels of 16 bits."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel: grey ``[h, w]``, RGB ``[h, w, 3]`` or RGBA; filter Sub."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8).reshape(height, -1)
    before = np.zeros_like(rows)
    before[:, 2 * channels :] = rows[:, : -2 * channels]
    data = b"".join(b"\1" + row.tobytes() for row in rows - before)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def tiff16(
    values: np.ndarray, end: str = "<", deflate: bool = False, orientation: int = 1
) -> bytes:
    """A TIFF of 16 bits a channel in one strip, of either order of bytes."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    body = values.astype(f"{end}u2").tobytes()
    body = zlib.compress(body) if deflate else body
    bits = 8 + len(body)  # where the bits of each channel stand
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits if channels > 1 else 16),
        (259, 3, 1, 8 if deflate else 1),
        (262, 3, 1, 2 if channels > 1 else 1),
        (273, 4, 1, 8),
        (274, 3, 1, orientation),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(body)),
    ]
    start = bits + 2 * channels
    directory = struct.pack(f"{end}H", len(tags))
    for tag, kind, count, value in tags:
        inline = f"{end}HHI" + ("HH" if kind == 3 and count == 1 else "I")
        directory += struct.pack(
            inline, tag, kind, count, *((value, 0) if inline[-2:] == "HH" else (value,))
        )
    mark = b"II" if end == "<" else b"MM"
    return (
        mark
        + struct.pack(f"{end}HI", 42, start)
        + body
        + struct.pack(f"{end}{channels}H", *[16] * channels)
        + directory
        + bytes(4)
    )


def tiff_of_channels(file, data: np.ndarray, order: str = "<", planar: bool = False) -> None:
    """A TIFF of any number of channels, in strips of ten rows, as microscopes write it."""
    height, width, samples = data.shape
    array = data.astype(data.dtype.newbyteorder(order))
    planes = array.transpose(2, 0, 1) if planar else [array]
    strips = [
        zlib.compress(plane[y : y + 10].tobytes()) for plane in planes for y in range(0, height, 10)
    ]
    body, places = b"", []
    for strip in strips:
        places.append(8 + len(body))
        body += strip + b"\0" * (len(strip) % 2)
    extra = 8 + len(body)
    tail = b""

    def stored(kind: str, numbers: list[int]) -> bytes:
        nonlocal tail
        text = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(text) <= 4:
            return text.ljust(4, b"\0")
        place = extra + len(tail)
        tail += text
        return struct.pack(f"{order}I", place)

    kind = {"u": 1, "i": 2, "f": 3}[data.dtype.kind]
    rows = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [data.dtype.itemsize * 8] * samples),
        (259, "H", [8]),
        (262, "H", [1]),
        (273, "I", places),
        (277, "H", [samples]),
        (278, "I", [10]),
        (279, "I", [len(strip) for strip in strips]),
        (284, "H", [1 + planar]),
        (339, "H", [kind] * samples),
    ]
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind_], len(numbers))
        + stored(kind_, numbers)
        for tag, kind_, numbers in rows
    )
    at = extra + len(tail) + len(tail) % 2
    directory = struct.pack(f"{order}H", len(rows)) + entries + b"\0" * 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    file.write_bytes((head + body + tail).ljust(at, b"\0") + directory)


def tiff_in_tiles(
    values: np.ndarray, side: int, orientation: int = 1, big: bool = False, jpeg: bool = False
) -> bytes:
    """RGB ``[h, w, 3]`` of 8 bits in tiles, by deflate or JPEG, as slides have it."""
    height, width = values.shape[:2]
    across, down = -(-width // side), -(-height // side)
    whole = np.zeros((down * side, across * side, 3), np.uint8)
    whole[:height, :width] = values
    tiles = [
        (_jpeg if jpeg else zlib.compress)(whole[y : y + side, x : x + side].copy())
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    body = b"".join(tiles)
    start = 16 if big else 8
    lengths = [len(tile) for tile in tiles]
    places = [start + sum(lengths[:n]) for n in range(len(tiles))]
    tables = start + len(body)
    word, inline = ("Q", 8) if big else ("I", 4)
    tail, entries = b"", b""
    for tag, kind, numbers in [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8, 8, 8]),
        (259, 3, [7 if jpeg else 8]),
        (262, 3, [6 if jpeg else 2]),
        (274, 3, [orientation]),
        (277, 3, [3]),
        (322, 4, [side]),
        (323, 4, [side]),
        (324, 4, places),
        (325, 4, lengths),
        (530, 3, [2, 2]),
    ]:
        value = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(value) > inline:
            tail += value
            value = struct.pack(f"<{word}", tables + len(tail) - len(value))
        entries += struct.pack(f"<HH{word}", tag, kind, len(numbers)) + value.ljust(inline, b"\0")
    at = tables + len(tail)
    head = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, at) if big else struct.pack("<2sHI", b"II", 42, at)
    )
    directory = struct.pack("<Q" if big else "<H", 12) + entries + bytes(inline)
    return head + body + tail + directory


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", subsampling="4:2:0")
    return stream.getvalue()
