"""Time and memory of a crop from a large image: its region alone, and the whole image first.

    python -m benchmarks.tiles [--side 10000] [--crop 224] [--places 9] [--repeats 3]

One square image with smooth structure and grain, as a TIFF in tiles, in strips (both by deflate)
and without compression, and as a JPEG with a restart marker before each row of blocks and without.
*Region*: what a sample of ``DATA.TILE`` does, at ``--places`` crops along the diagonal; *whole*:
the image decoded, then cut. A process of one thread for each, processor time: median and range.
*Memory*: the most that the process held, above what it held before.
"""

import argparse
import multiprocessing
import os
import statistics
import struct
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from densessl.decoding import Region, decode

from .memory import peak, reset_peak

MIB = 1 << 20
TILE = 256  # side of a tile of the TIFF
DEFLATE = {"compression": "tiff_adobe_deflate"}
ROW = {"restart_marker_rows": 1}
Box = tuple[int, int, int, int]


def image_of(side: int) -> Image.Image:
    """RGB with about as much detail as a photograph."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (side // 32 + 1, side // 32 + 1, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    grain = rng.integers(0, 16, (side, 1), dtype=np.uint8)
    for y in range(side):
        pixels[y] = pixels[y] // 2 + np.roll(grain, 31 * y, 0)
    return Image.fromarray(pixels)


def write_tiles(file: Path, image: Image.Image) -> None:
    """A TIFF in tiles, by deflate, as slides and satellites have it."""
    width, height = image.size
    places, lengths = [], []
    with file.open("wb") as stream:
        stream.write(bytes(8))
        for y in range(0, height, TILE):
            for x in range(0, width, TILE):
                tile = image.crop((x, y, x + TILE, y + TILE))  # black beyond the edge
                data = zlib.compress(tile.tobytes())
                places.append(stream.tell())
                lengths.append(len(data))
                stream.write(data)
        single = {256: width, 257: height, 259: 8, 262: 2, 277: 3, 322: TILE, 323: TILE}
        tags = {tag: [value] for tag, value in single.items()}
        entries = b""
        for tag, values in sorted((tags | {258: [8] * 3, 324: places, 325: lengths}).items()):
            value = struct.pack(f"<{len(values)}I", *values)
            if len(values) > 1:
                place = stream.tell()
                stream.write(value)
                value = struct.pack("<I", place)
            entries += struct.pack("<HHI", tag, 4, len(values)) + value
        start = stream.tell()
        stream.write(struct.pack("<H", len(entries) // 12) + entries + bytes(4))
        stream.seek(0)
        stream.write(struct.pack("<2sHI", b"II", 42, start))


def write_files(folder: Path, side: int) -> dict[str, Path]:
    image = image_of(side)
    names = ("tiles.tif", "strips.tif", "plain.tif", "restarts.jpg", "plain.jpg")
    tiles, strips, plain, restarts, jpeg = files = [folder / name for name in names]
    write_tiles(tiles, image)
    image.save(strips, **DEFLATE)
    image.save(plain)
    image.save(restarts, quality=90, **ROW)
    image.save(jpeg, quality=90)
    kinds = (f"TIFF, tiles of {TILE} px", "TIFF, strips", "TIFF, not compressed")
    return dict(zip((*kinds, "JPEG, restart markers", "JPEG"), files, strict=True))


def measure(file: Path, boxes: list[Box], region: bool) -> tuple[list[float], float]:
    """Seconds of each crop, and the memory that they took, in megabytes."""
    Image.init()
    before = reset_peak()
    seconds = []
    for box in boxes:
        began = time.process_time()
        if region:
            decode(Region(file, box))
        else:
            decode(file).image.crop(box)
        seconds.append(time.process_time() - began)
    return seconds, (peak() - before) * MIB / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10000)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--places", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3, help="of the whole image")
    options = parser.parse_args()
    last, crop = options.side - options.crop, options.crop
    edges = [last * n // max(options.places - 1, 1) for n in range(options.places)]
    boxes = [(at, at, at + crop, at + crop) for at in edges]
    table = Table(
        title=f"a crop of {crop} px from {options.side} x {options.side}, one thread: region at "
        f"{options.places} places, whole {options.repeats} times, load {os.getloadavg()[0]:.1f}"
    )
    for column in ("file", "MB", "region, ms", "range", "MB held", "whole, ms", "range", "MB held"):
        table.add_column(column, justify="left" if column == "file" else "right")
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        files = write_files(Path(name), options.side)
        for kind, file in files.items():
            cells = []
            for region, some in ((True, boxes), (False, boxes[: options.repeats])):
                with fresh.Pool(1) as pool:
                    seconds, held = pool.apply(measure, (file, some, region))
                ms = [1000 * each for each in seconds]
                spread = f"{min(ms):.0f}-{max(ms):.0f}"
                cells += [f"{statistics.median(ms):.0f}", spread, f"{held:.0f}"]
            table.add_row(kind, f"{file.stat().st_size / 1e6:.0f}", *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
