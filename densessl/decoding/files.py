"""Image files: which they are, and opened without Pillow's limit; the reason where that fails."""

import errno
import importlib.util
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError, features

from densessl.core.errors import DenseSSLError
from densessl.core.files import require_file

from . import frames

NAMED = 5  # suffixes in a message

EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif")  # Pillow gives no more
OTHERS = (".png", ".ppm", ".pgm", ".tif", ".tiff", ".svs")  # the last: slides, which are TIFFs


def _where_pillow_has(feature: str, *suffixes: str) -> tuple[str, ...]:
    return suffixes if features.check(feature) else ()


NPY = ".npy"
AVIF = _where_pillow_has("avif", ".avif")  # brought down to 8 bits while it is read
JPEG_2000 = _where_pillow_has("jpg_2000", ".jp2", ".j2k")
DICOM = (".dcm", ".dicom")
HAS_DICOM = importlib.util.find_spec("pydicom") is not None
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
if HAS_DICOM:
    from . import dicom  # noqa: F401  # which makes the format known to Pillow
SUFFIXES = (*EIGHT_BITS[:2], ".png", *EIGHT_BITS[2:], *OTHERS[1:], *AVIF, *JPEG_2000)
SUFFIXES += DICOM if HAS_DICOM else ()


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's that can be read here; hidden files are none."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def is_array(name: str) -> bool:
    """Whether a file's name ends as an NPY's, which may be an image of other channels than
    colours; hidden files are none."""
    return name.lower().endswith(NPY) and not name.startswith(".")


def is_video(name: str) -> bool:
    """Whether a file's name ends as that of a video whose frames can be read; hidden ones are none.

    Whether PyAV, which reads them, is installed, is another question."""
    return name.lower().endswith(VIDEOS) and not name.startswith(".")


def may_be_deep(name: str) -> bool:
    """Whether a file of this name, or of that of a frame or region, can hold more than 8 bits a
    channel."""
    if frames.FRAGMENT in name:
        return False
    return not name.partition(FRAGMENT)[0].lower().endswith((*EIGHT_BITS, *AVIF))


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """'5 other files are left out: 4 .txt, 1 .mp4'; the most frequent suffixes by name."""
    total = sum(left_out.values())
    counted = Counter(left_out).most_common()
    shown = ", ".join(
        f"{count:,} {suffix or 'without suffix'}" for suffix, count in counted[:NAMED]
    )
    more = ", …" if len(counted) > NAMED else ""
    if not HAS_DICOM and not left_out.keys().isdisjoint(DICOM):
        more += " (pip install 'densessl[dicom]' reads DICOM)"
    if videos := sum(left_out.get(suffix, 0) for suffix in VIDEOS):
        more += f" (videos: {videos:,}; DATA.FRAME_RATE 1 takes a frame a second of them)"
    what = "other file is" if total == 1 else "other files are"
    return f"{total:,} {what} left out, by suffix: {shown}{more}"


File = str | os.PathLike | BinaryIO
FRAGMENT = "#xywh="  # before the place of a region, as W3C's Media Fragments write it

# Errors of the machine, not of the file: who takes them for unreadable images gives other results
# on another day.
MACHINE_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}


class UnreadableImage(ValueError):
    """A file cannot be read as an image; the message is the reason, without the file's name."""


def content_of(file: File) -> bytes:
    """All bytes of a path, or of a stream from its beginning."""
    if isinstance(file, str | os.PathLike):
        return Path(file).read_bytes()
    file.seek(0)
    return file.read()


@contextmanager
def unlimited() -> Iterator[None]:
    """Pillow without its limit of pixels: ours is that of :func:`densessl.decoding.decode`."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def opened(file: File) -> Iterator[Image.Image]:
    """The image in a file (a path, or a stream of its bytes), of any size, not yet decoded.

    What is raised inside becomes UnreadableImage, as by :func:`reasons`.
    """
    with reasons(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd EXIF data
        if isinstance(file, str | os.PathLike):
            require_file(file)
        with unlimited(), Image.open(file) as image:
            yield image


@contextmanager
def reasons(file: File | None = None) -> Iterator[None]:
    """What is raised inside, of whatever kind, becomes UnreadableImage with the reason.

    Errors of the machine (too many open files, no memory, a mount that is gone) are raised as they
    are. ``file``: what is read, to tell an empty one.
    """
    try:
        yield
    except (DenseSSLError, MemoryError, UnreadableImage):
        raise
    except Exception as error:  # a damaged file makes Pillow's plugins raise nearly any kind
        if getattr(error, "errno", None) in MACHINE_ERRORS:
            raise
        raise UnreadableImage(_reason(error, file)) from None


def _reason(error: Exception, file: File | None) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or str(error)
    if _bytes_of(file) == 0:
        return "empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return _of_channels(file) or "no image of a format that Pillow reads"
    return " ".join(str(error).split()) or type(error).__name__


def _of_channels(file: File | None) -> str:
    """What a TIFF holds whose channels are no colours, and how it is read; '' for all else."""
    from . import tiff_parts  # which imports this module

    try:
        with ExitStack() as stack:
            if isinstance(file, str | os.PathLike):
                file = stack.enter_context(open(file, "rb"))
            if file is None or file.seek(0) or file.read(4) not in tiff_parts.ORDERS:
                return ""
            page = next(tiff_parts.pages(file))
            channels = page.number(tiff_parts.SAMPLES, 1)
            bits = page.number(tiff_parts.BITS)
    except Exception:  # whatever a damaged header makes of these numbers
        return ""
    if channels in (1, 3):
        return ""
    return (
        f"{channels} channels of {bits} bits, which no picture has: DATA.CHANNELS {channels} (in "
        f"transfer INPUT.CHANNELS {channels}) takes them as they are stored"
    )


def _bytes_of(file: File | None) -> int | None:
    if file is None:
        return None
    try:
        if isinstance(file, str | os.PathLike):
            return Path(file).stat().st_size
        return file.seek(0, os.SEEK_END)
    except (OSError, ValueError):
        return None
