"""Image files → RGB pixels: one rule for pretraining, classification, detection, segmentation.

Depth, range, orientation, channels and size of whatever Pillow reads. Label images are none of its
business: they are read exactly as they are.
"""

from typing import TYPE_CHECKING

from densessl.core.lazy import lazily

from .given import COLOURS, MAX_PIXELS, Range, describe, parse, parse_channel_files

if TYPE_CHECKING:
    from .decoder import Picture, UnreadableImage, decode, require_decodable, size_of
    from .files import (
        SUFFIXES,
        describe_left_out,
        is_array,
        is_image,
        is_video,
        opened,
        reasons,
        unlimited,
    )
    from .ranges import FoundRange, find_range, sample
    from .regions import Region

_NAMES = {  # a name, and the module that has it: these import numpy and Pillow
    "Picture": "decoder",
    "UnreadableImage": "decoder",
    "decode": "decoder",
    "require_decodable": "decoder",
    "size_of": "decoder",
    "SUFFIXES": "files",
    "describe_left_out": "files",
    "is_array": "files",
    "is_image": "files",
    "is_video": "files",
    "opened": "files",
    "reasons": "files",
    "unlimited": "files",
    "FoundRange": "ranges",
    "find_range": "ranges",
    "sample": "ranges",
    "Region": "regions",
}
__all__ = [
    "COLOURS",
    "MAX_PIXELS",
    "SUFFIXES",
    "FoundRange",
    "Picture",
    "Range",
    "Region",
    "UnreadableImage",
    "decode",
    "find_range",
    "is_array",
    "is_image",
    "is_video",
    "opened",
    "parse",
    "parse_channel_files",
    "reasons",
    "require_decodable",
    "sample",
    "size_of",
    "describe",
    "describe_left_out",
    "unlimited",
]
__getattr__ = lazily(__name__, _NAMES)
