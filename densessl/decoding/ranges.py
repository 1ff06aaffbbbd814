"""Which values become black and white in images that are not of 8 bits, from a sample of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .channel_files import ChannelFiles
from .depth import is_deep, read_values
from .files import File, UnreadableImage, may_be_deep, opened
from .given import Range
from .regions import Region, as_stored, cropped, prepared

SAMPLED = 256  # files of a sample
VALUES = 1 << 14  # that count of each
PERCENTILES = (0.1, 99.9)
FILLED = 0.5  # of a natural range: so much of it must be used, or the percentiles are taken
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners have
DIGITS = 4  # of a range of floats


@dataclass(frozen=True)
class FoundRange:
    """What a sample says: the range, and the least and greatest value of its ``files`` files."""

    range: Range
    files: int
    least: float
    greatest: float


def sample(count: int, name: Callable[[int], str]) -> list[int]:
    """At most 256 numbers of files that may hold more than 8 bits, spread evenly over them."""
    may = [index for index in range(count) if may_be_deep(name(index))]
    if len(may) <= SAMPLED:
        return may
    return [may[part * len(may) // SAMPLED] for part in range(SAMPLED)]


Given = File | Region | ChannelFiles


def find_range(files: Sequence[Given] | Sequence[Callable[[], Given]]) -> FoundRange | None:
    """The range of those of the files that are not of 8 bits; None where there is none.

    All their values count for the bounds, up to 16384 of each, spread evenly, for the percentiles.
    Files that cannot be read are left out. See :func:`automatic` for the rule.
    """
    seen = Seen()
    for file in files:
        try:
            given = file() if callable(file) else file
            for values in _deep_values(given):
                seen.add(values)
        except (UnreadableImage, OSError):  # said where the image is used
            continue
    return seen.found()


def _deep_values(given: Given) -> Iterator[np.ndarray]:
    """The values of those of its files that are not of 8 bits."""
    for file in given.files if isinstance(given, ChannelFiles) else (given,):
        whole, box = prepared(file)
        with opened(whole) as image:
            if is_deep(image):
                values = read_values(image, whole)
                yield cropped(values, as_stored(box, image)) if box else values


class Seen:
    """Values of several images, as far as the rule needs them."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.least, self.greatest, self.floats = math.inf, -math.inf, False

    def add(self, values: np.ndarray) -> None:
        """Count an image in; values that are no finite number are left out."""
        flat = values.reshape(-1)
        self.floats |= values.dtype.kind == "f"
        if values.dtype.kind == "f":
            flat = flat[np.isfinite(flat)]
        if not len(flat):
            return
        self.least = min(self.least, float(flat.min()))
        self.greatest = max(self.greatest, float(flat.max()))
        self.parts.append(flat[:: -(-len(flat) // VALUES)].astype(np.float64))

    def found(self) -> FoundRange | None:
        """The range by the rule of :func:`automatic`; None where nothing was counted in."""
        if not self.parts:
            return None
        bounds = automatic(np.concatenate(self.parts), self.least, self.greatest, self.floats)
        return FoundRange(bounds, len(self.parts), self.least, self.greatest)


def automatic(values: np.ndarray, least: float, greatest: float, floats: bool) -> Range:
    """The range of values: a natural one that they fill, or what nearly all of them lie in.

    Natural ranges are 0 to 1 of floats, and 0 to 255, 1023, 4095, 16383, 65535 (8 to 16 bits); the
    smallest that holds all values is taken where the percentiles 0.1 and 99.9 span half of it or
    more, so that a picture of 12 bits stays as bright as it is. Otherwise these percentiles are the
    range, as for a thermal camera that gives 7000 to 9000.
    """
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    natural = _natural(least, greatest, floats)
    if natural and high - low >= FILLED * (natural[1] - natural[0]):
        return natural
    if high <= low:
        low, high = least, greatest
    if high <= low:  # one value everywhere
        return natural or (low, low + 1)
    if not floats:
        return float(math.floor(low)), float(math.ceil(high))
    step = 10.0 ** (math.floor(math.log10(high - low)) + 1 - DIGITS)
    return _rounded(math.floor(low / step) * step), _rounded(math.ceil(high / step) * step)


def _rounded(value: float) -> float:
    return float(f"{value:.12g}")


def _natural(least: float, greatest: float, floats: bool) -> Range | None:
    if least < 0:
        return None
    if floats and greatest <= 1:
        return 0.0, 1.0
    return next(((0.0, 2.0**n - 1) for n in DEPTHS if greatest <= 2**n - 1), None)
