"""Images of data sets → pixels, by the one decoder, in the channels that a detector wants."""

import os
from dataclasses import dataclass

import numpy as np

from densessl.core.errors import InputError
from densessl.decoding import Range, UnreadableImage, decode, parse, parse_channel_files
from densessl.decoding.channel_files import image_of
from densessl.decoding.channels import decode_channels
from densessl.weight_files.images import AS_STORED

from .. import compat

compat.setup()
from detectron2.data.detection_utils import convert_PIL_to_numpy  # noqa: E402


@dataclass(frozen=True)
class Reading:
    """``reading(file)``: uint8 pixels ``[h, w, channels]``, and width and height of the file.

    The pixels are fewer than the size says where the file is read at reduced scale. ``format``: as
    INPUT.FORMAT; "as stored" reads ``channels`` of them. ``bounds`` and ``max_pixels``: as
    :func:`densessl.decoding.decode` has them, ``words`` as :mod:`densessl.decoding.channel_files`.
    """

    format: str
    bounds: Range | None
    max_pixels: int
    channels: int = 3
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, cfg) -> "Reading":
        """As a Detectron2 config says."""
        channels = len(cfg.MODEL.PIXEL_MEAN)
        words = parse_channel_files(cfg.INPUT.CHANNEL_FILES, "INPUT.CHANNEL_FILES")
        return cls(cfg.INPUT.FORMAT, bounds_of(cfg), cfg.INPUT.MAX_PIXELS, channels, words)

    def __call__(self, file: str | os.PathLike) -> tuple[np.ndarray, tuple[int, int]]:
        """Raises InputError that names the file and the reason."""
        held = image_of(file, self.words)
        try:
            if self.format == AS_STORED:
                planes = decode_channels(held, self.channels, self.bounds, self.max_pixels)
                return planes.values, planes.size
            image, size = decode(held, self.bounds, self.max_pixels)
        except UnreadableImage as error:
            raise InputError(f"{file} cannot be read: {error}") from None
        return convert_PIL_to_numpy(image, self.format), size


def bounds_of(cfg) -> Range | None:
    """The range that INPUT.RANGE names once it is settled; None: each file's own."""
    return parse(cfg.INPUT.RANGE, "INPUT.RANGE") if cfg.INPUT.RANGE else None
