"""Images of any number of channels, as they are stored: TIFF of one or several pages, PNG, NPY."""

import importlib.util
import io
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import BinaryIO

import numpy as np
from PIL import Image

from . import depth, tiff_parts
from .channel_files import ChannelFiles
from .files import File, UnreadableImage, content_of, opened, reasons
from .given import MAX_PIXELS, WHOLE, Range
from .ranges import FoundRange, Seen
from .regions import ARRAY, Region, cropped, prepared
from .tiff_parts import BITS, COMPRESSION, FORMAT, NONE, PLANES, PREDICTOR, SAMPLES, STRIPS

TIFF = (b"II*\0", b"MM\0*")
MODES = ("1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK")
DEFLATE = (8, 32946)  # compression of a TIFF
KINDS = {1: "u", 2: "i", 3: "f"}  # SampleFormat


@dataclass(frozen=True)
class Planes:
    """An image of C channels of 8 bits, ``values [h, w, C]``, of which parts can be cut."""

    values: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.values.shape[1], self.values.shape[0]

    @cached_property
    def bands(self) -> list[Image.Image]:
        """Each channel as an image of Pillow's, which has none of several such channels."""
        return [
            Image.fromarray(np.ascontiguousarray(band)) for band in self.values.transpose(2, 0, 1)
        ]


def decode_channels(
    file: File | Region | ChannelFiles,
    channels: int,
    bounds: Range | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Planes:
    """All channels of a file, or of several, as 8 bits; ``bounds`` and ``max_pixels`` as
    :func:`decode` has them.

    Raises UnreadableImage also for a file of another number of channels.
    """
    values = read_channels(file, channels, max_pixels)
    if values.dtype != np.uint8:
        if bounds is None:
            bounds = range_of([values]) or (0.0, 1.0)
        values = depth.to_bytes(values, bounds)
    return Planes(values)


def read_channels(
    file: File | Region | ChannelFiles, channels: int, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """The values of a file, or of a region of it, as they are stored, ``[h, w, channels]``; of
    several files those of all. UnreadableImage."""
    if isinstance(file, ChannelFiles):
        return _joined(file, channels, max_pixels)
    file, box = prepared(file, upright=False, pages=channels)
    with reasons(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of tags that are cut
        if isinstance(file, str | os.PathLike):
            with open(file, "rb") as stream:
                head = stream.read(6)
        else:
            file.seek(0)
            head = file.read(6)
            file.seek(0)
        if head == ARRAY:
            on_disk = box is not None and isinstance(file, str | os.PathLike)
            values = np.load(file, "r" if on_disk else None, allow_pickle=False)
        elif head[:4] in TIFF:
            values = _tiff(file, channels)
        else:
            values = _pillows(file)
        values = _arranged(values, channels)
        values = cropped(values, box) if box else values
    if values.shape[0] * values.shape[1] > (max_pixels or WHOLE):
        raise UnreadableImage(
            f"{values.shape[1]} x {values.shape[0]} pixels: more than DATA.MAX_PIXELS {max_pixels}"
        )
    return values


def _joined(image: ChannelFiles, channels: int, max_pixels: int) -> np.ndarray:
    """The channels of several files, one of each."""
    if len(image.files) != channels:
        raise UnreadableImage(f"it is {len(image.files)} files, for {channels} channels")
    parts = []
    for file in image.files:
        try:
            parts.append(read_channels(file, 1, max_pixels))
        except UnreadableImage as error:
            raise UnreadableImage(f"{_named(file)}{error}") from None
    for file, part in zip(image.files, parts, strict=True):
        if part.shape != parts[0].shape or (part.dtype == np.uint8) != (parts[0].dtype == np.uint8):
            first, own = (f"{p.shape[1]} x {p.shape[0]} {p.dtype}" for p in (parts[0], part))
            raise UnreadableImage(
                f"{_named(file)}its pixels are {own}, those of the first channel {first}"
            )
    return np.concatenate(parts, axis=2)


def _named(file: File | Region) -> str:
    held = file.file if isinstance(file, Region) else file
    return f"{os.path.basename(held)}: " if isinstance(held, str | os.PathLike) else ""


def stored_size(file: File, channels: int = 0) -> tuple[int, int] | None:
    """Width and height of a TIFF or NPY of any number of channels, from its header; None for others
    and for damaged ones. Of an NPY the first or the last edge counts the channels: that which says
    ``channels``, the last one first, else the shorter."""
    try:
        if not isinstance(file, str | os.PathLike):
            return _stored_size(file, channels)
        with open(file, "rb") as stream:
            return _stored_size(stream, channels)
    except Exception:  # whatever a damaged header makes Pillow and numpy raise
        return None


def _stored_size(stream: BinaryIO, channels: int) -> tuple[int, int] | None:
    stream.seek(0)
    head = stream.read(8)
    if head[:4] in tiff_parts.ORDERS:
        return next(tiff_parts.pages(stream)).size
    if not head.startswith(ARRAY):
        return None
    stream.seek(0)
    first = np.lib.format.read_magic(stream)[0] == 1
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, _ = read(stream)
    if len(shape) == 3:
        last = shape[2] == channels or (shape[0] != channels and shape[2] <= shape[0])
        shape = shape[:2] if last else shape[1:]
    return (shape[1], shape[0]) if len(shape) == 2 else None


def stored_channels(file: str | os.PathLike) -> int:
    """How many channels a TIFF has in each pixel, or an NPY in its last or first edge, whichever is
    the shorter; 0 of others and of damaged ones."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(6)
            stream.seek(0)
            if head[:4] in tiff_parts.ORDERS:
                return next(tiff_parts.pages(stream)).number(SAMPLES, 1)
            shape: tuple[int, ...] = ()
            if head == ARRAY:
                shape = np.load(file, "r", allow_pickle=False).shape
    except Exception:  # whatever a damaged header makes numpy raise
        return 0
    return 1 if len(shape) == 2 else min(shape[0], shape[-1]) if len(shape) == 3 else 0


def find_range(files: Sequence[File | Region | ChannelFiles], channels: int) -> FoundRange | None:
    """As :func:`densessl.decoding.find_range`, of images of so many channels."""

    def readable() -> Iterator[np.ndarray]:
        for file in files:
            with suppress(UnreadableImage, OSError):  # said where the image is used
                yield read_channels(file, channels)

    return _found(readable())


def range_of(images: Sequence[np.ndarray]) -> Range | None:
    """The range of those that are not of 8 bits, by the rule of :mod:`.ranges`."""
    found = _found(images)
    return found.range if found else None


def _found(images: Iterable[np.ndarray]) -> FoundRange | None:
    seen = Seen()
    for values in images:
        if values.dtype != np.uint8:
            seen.add(values)
    return seen.found()


def _arranged(values: np.ndarray, channels: int) -> np.ndarray:
    """``[h, w, C]``, of an array that may have its channels first, or none."""
    if values.dtype.kind not in "buif":
        raise UnreadableImage(f"its values are {values.dtype}; allowed: numbers")
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim == 3 and values.shape[2] != channels and values.shape[0] == channels:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] != channels or 0 in values.shape:
        raise UnreadableImage(
            f"its values have the shape {values.shape}, not {channels} channels (DATA.CHANNELS)"
        )
    return values


def _pillows(file: File) -> np.ndarray:
    with opened(file) as image:
        if image.width * image.height > WHOLE:
            raise UnreadableImage(f"{image.width} x {image.height} pixels are too many")
        if depth.is_deep(image):
            return depth.read_values(image, file)
        if image.mode not in MODES:
            raise UnreadableImage(f"its mode is {image.mode}; allowed: {', '.join(MODES)}")
        return np.asarray(image)


def _tiff(file: File, channels: int) -> np.ndarray:
    """The samples of a pixel, or, where there is one, the pages: as many as channels.

    In tiles, or compressed in another way: by GDAL, where rasterio is installed.
    """
    data = content_of(file)
    try:
        return _in_strips(data, channels)
    except _OtherStorage as error:
        if not importlib.util.find_spec("rasterio"):
            advice = "pip install 'densessl[geotiff]' for GDAL, which reads more"
            raise UnreadableImage(f"{error} ({advice})") from None
    return _by_gdal(data)


class _OtherStorage(UnreadableImage):
    """A TIFF in tiles, or compressed in a way that is not read here."""


def _by_gdal(data: bytes) -> np.ndarray:
    from rasterio.io import MemoryFile

    with MemoryFile(data) as held, held.open() as opened:
        if opened.width * opened.height > WHOLE:
            raise UnreadableImage(f"{opened.width} x {opened.height} pixels are too many")
        return opened.read().transpose(1, 2, 0)


def _in_strips(data: bytes, channels: int) -> np.ndarray:
    pages: list[np.ndarray] = []
    for page in islice(tiff_parts.pages(io.BytesIO(data)), max(channels, 1)):
        pages.append(_page(data, page))
        if pages[0].shape[2] > 1:
            break
    shapes = {page.shape for page in pages}
    if len(shapes) != 1:
        raise UnreadableImage(f"its pages have the shapes {', '.join(map(str, sorted(shapes)))}")
    return np.concatenate(pages, axis=2)


def _page(data: bytes, page: tiff_parts.Page) -> np.ndarray:
    """``[h, w, samples]`` of a page in strips, of no compression or by deflate."""
    width, height = page.size
    samples, compression = page.number(SAMPLES, 1), page.number(COMPRESSION, NONE)
    bits, kind, predictor = page.numbers(BITS, 1), page.number(FORMAT, 1), page.number(PREDICTOR, 1)
    in_strips = STRIPS[0] in page.tags
    if not in_strips or len(set(bits)) > 1 or bits[0] not in (8, 16, 32, 64) or kind not in KINDS:
        raise _OtherStorage(
            f"a TIFF of {bits[0]} bits{'' if in_strips else ' in tiles'}; allowed with "
            "DATA.CHANNELS: strips of 8, 16, 32 or 64 bits a channel"
        )
    if compression not in (NONE, *DEFLATE) or predictor != 1:
        raise _OtherStorage(
            f"a TIFF of compression {compression}, predictor {predictor}; allowed with "
            "DATA.CHANNELS: none, or deflate without a predictor"
        )
    if width * height > WHOLE:
        raise UnreadableImage(f"{width} x {height} pixels are too many")
    starts, lengths = map(page.numbers, STRIPS)
    parts = [data[at : at + length] for at, length in zip(starts, lengths, strict=True)]
    size = width * height * samples * bits[0] // 8
    if compression != NONE:
        parts = [zlib.decompressobj().decompress(part, size) for part in parts]
    whole = b"".join(parts)
    if len(whole) < size:
        raise UnreadableImage(f"a TIFF with {len(whole)} bytes of pixels; it says {size}")
    values = np.frombuffer(whole[:size], f"{page.order}{KINDS[kind]}{bits[0] // 8}")
    if page.number(PLANES, 1) == 2:  # a plane a channel
        return values.reshape(samples, height, width).transpose(1, 2, 0)
    return values.reshape(height, width, samples)
