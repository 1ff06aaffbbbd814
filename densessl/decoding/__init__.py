"""Image files → RGB pixels: one rule for pretraining, classification, detection, segmentation.

Depth, range, orientation, channels and size of whatever Pillow reads. Label images are none of its
business: they are read exactly as they are.
"""

from .decoder import MAX_PIXELS, Picture, UnreadableImage, decode, require_decodable, size_of
from .files import SUFFIXES, describe_left_out, is_image, opened, reasons, unlimited
from .ranges import FoundRange, Range, describe, find_range, parse, sample

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "FoundRange",
    "Picture",
    "Range",
    "UnreadableImage",
    "decode",
    "find_range",
    "is_image",
    "opened",
    "parse",
    "reasons",
    "require_decodable",
    "sample",
    "size_of",
    "describe",
    "describe_left_out",
    "unlimited",
]
