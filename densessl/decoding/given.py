"""What is given for the reading of images, as options: the range of values, the most pixels.

Nothing of it imports numpy or Pillow, so that options are checked in a moment.
"""

import math
import re

from densessl.core.errors import InputError

Range = tuple[float, float]  # the values that become 0 and 255

COLOURS = 3  # channels of an image whose colours are known: RGB
MAX_PIXELS = 178_956_970  # the size from which Pillow itself refuses to read
WHOLE = 1 << 29  # pixels that are decoded before they are reduced: 2 GB of RGB
AUTO = "auto"
BETWEEN = re.compile(r"\s+to\s+|[,:;\s]+")  # the two numbers of a range


def parse(text: object, option: str) -> Range | None:
    """A range from an option: None for 'auto', else two rising numbers, as 7000,9000.

    Raises InputError that names ``option``.
    """
    if isinstance(text, str) and text.strip().lower() == AUTO:
        return None
    bare = str(text).strip().strip("()[]").strip()
    parts = text if isinstance(text, tuple | list) else BETWEEN.split(bare)
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"{option} is '{text}'; allowed: auto, or the two values that become black and white, "
            f"the smaller first, as in {option} 0,4095"
        )
    return low, high


def parse_channel_files(text: str, option: str) -> tuple[str, ...]:
    """The words that tell the files of an image apart, from ``_B02,_B03,_B04``; none of ''.

    Raises InputError that names ``option``.
    """
    words = tuple(word.strip() for word in text.split(",")) if text else ()
    bad = len(words) == 1 or len(set(words)) < len(words)
    if bad or any(not word or "/" in word for word in words):
        raise InputError(
            f"{option} is '{text}'; allowed: a word for each channel with commas between, each "
            "another one, as in _B02,_B03,_B04,_B08: what the names of an image's files differ in"
        )
    return words


def describe(bounds: Range | None) -> str:
    """A range as people, configs and :func:`parse` read it."""
    return "8 bits" if bounds is None else ",".join(_plain(value) for value in bounds)


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
