"""The one decoder: what a file's pixels are, wherever they are used."""

import math
from typing import NamedTuple

from PIL import Image

from . import channels, depth
from .channel_files import ChannelFiles
from .files import File, UnreadableImage, opened
from .given import COLOURS, MAX_PIXELS, WHOLE, Range
from .orientation import ORIENTATION, SWAPPED, TURNS, Box, orientation_of
from .ranges import Seen
from .regions import Region, as_stored, cropped, prepared, require_inside

JPEG_SCALES = (2, 4, 8)


class Picture(NamedTuple):
    """A decoded image: RGB, upright; and the ``size`` (width, height) that its file has.

    The image is smaller than ``size`` where it was read at reduced scale.
    """

    image: Image.Image
    size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the file over pixels of the image, across and down: 1 of most."""
        return self.size[0] / self.image.width, self.size[1] / self.image.height


def decode(
    file: File | Region | ChannelFiles, bounds: Range | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """The first image in a file as upright RGB of 8 bits, or a region of it.

    1, 8 bits: as stored; a palette gives its colours, grey is the same in all channels, CMYK is
    converted, transparency is dropped. 16 and 32 bits, floats: ``bounds`` become 0 and 255, what
    lies outside is clipped; None takes the range from this file alone. EXIF's orientation is
    applied. More than ``max_pixels`` (0: no limit) are read at reduced scale: by a JPEG's own
    halving, else decoded (at most 537 million pixels) and then averaged over blocks; a region is
    not, its ``size`` is its own, and None takes the range from it alone.

    Args:
        file: a path, or a stream of the file's bytes that can be sought; or a region of one. Three
            files of a channel each are red, green and blue, as they are stored.

    Raises:
        UnreadableImage: with the reason, for a file that is no image, damaged or too large.
        OSError: for what is the machine's fault.
    """
    if isinstance(file, ChannelFiles):
        planes = channels.decode_channels(file, COLOURS, bounds, max_pixels)
        return Picture(Image.fromarray(planes.values), planes.size)
    whole, box = prepared(file)
    most = 0 if box else max_pixels
    with opened(whole) as image:
        size = image.size
        if most and size[0] * size[1] > most:
            _prepare_reduction(image, most)
        elif max_pixels:
            require_decodable(image, max(WHOLE, max_pixels))
        if depth.is_deep(image):
            image = _as_bytes(image, whole, bounds, box)
        else:
            image.load()
        turn = orientation_of(image)
        if most and image.width * image.height > most:
            image = _reduced(image, most)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        if image.mode != "RGB":
            image = image.convert("RGB")
        if turn in TURNS:
            image = image.transpose(TURNS[turn])
            size = size[::-1] if turn in SWAPPED else size
        if box:
            require_inside(box, image.size)
            image = image.crop(box)
            size = image.size
    return Picture(image, size)


def size_of(file: File, upright: bool = True) -> tuple[int, int]:
    """Width and height of an image from its header, upright or as stored.

    Also of a TIFF or NPY of other channels than colours, as :mod:`.channels` reads them. Raises as
    :func:`decode`.
    """
    try:
        with opened(file) as image:
            turned = image.format == "TIFF"  # of which Pillow turns the size itself
            swapped = orientation_of(image) in SWAPPED and turned != upright
            return image.size[::-1] if swapped else image.size
    except UnreadableImage:
        if size := channels.stored_size(file):
            return size
        raise


def _as_bytes(image: Image.Image, file: File, bounds: Range | None, box: Box | None) -> Image.Image:
    """An image of more than 8 bits as one of 8, with its EXIF data; without ``bounds``, by the
    values of the region ``box`` if there is one."""
    values = depth.read_values(image, file)
    turn = orientation_of(image)
    if bounds is None:
        seen = Seen()
        seen.add(cropped(values, as_stored(box, image)) if box else values)
        found = seen.found()
        bounds = found.range if found else (0.0, 1.0)
    scaled = Image.fromarray(depth.to_bytes(values, bounds))
    scaled.getexif()[ORIENTATION] = turn
    return scaled


def _prepare_reduction(image: Image.Image, max_pixels: int) -> None:
    """Have a JPEG decoded at a half, a quarter or an eighth; refuse what is too large to decode."""
    width, height = image.size
    wanted = math.sqrt(width * height / max_pixels)
    if image.format in ("JPEG", "MPO"):
        scale = next((scale for scale in JPEG_SCALES if scale >= wanted), JPEG_SCALES[-1])
        image.draft(None, (width // scale, height // scale))
    require_decodable(image, max(WHOLE, max_pixels))


def require_decodable(image: Image.Image, most: int = WHOLE) -> None:
    """Raise UnreadableImage for an opened image of more pixels than may be in memory."""
    if image.width * image.height > most:
        raise UnreadableImage(
            f"{image.width} x {image.height} pixels: a {image.format} of more than "
            f"{most / 1e6:.0f} million is not decoded (0 for MAX_PIXELS allows any size)"
        )


def _reduced(image: Image.Image, max_pixels: int) -> Image.Image:
    """Averaged over square blocks, so that at most ``max_pixels`` are left."""
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    factor = math.ceil(math.sqrt(image.width * image.height / max_pixels))
    while math.ceil(image.width / factor) * math.ceil(image.height / factor) > max_pixels:
        factor += 1
    return image.reduce(factor)
