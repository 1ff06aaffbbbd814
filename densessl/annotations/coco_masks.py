"""Segmentations of COCO's format: polygons, and run lengths as numbers or as text.

pycocotools decodes run lengths without a look at their sum: with too few the rest of the mask is
memory that nothing has written.
"""

import math
import re
from collections.abc import Iterator

import numpy as np

from .model import LEAST_NUMBERS, Id

CHUNK = 1 << 18  # characters of run lengths that are decoded at once
TEXT, FIRST = re.compile("[0-o]+"), ord("0")  # 64 characters: six bits each
# Of the six bits, and how many hold the number; MORE says that it has another character.
VALUE, SIGN, MORE, BITS = 31, 16, 32, 5
MOST_DIGITS = 7  # 35 bits: pycocotools holds a run length in 32
SHOWN = 40  # characters of a text that a message shows

Fault = tuple[str, str]  # a kind, and a sentence about an annotation without its subject


def finite(values: list) -> bool:
    """Whether all are finite numbers; in one call, as COCO's polygons have 30 million."""
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False


def polygons_fault(mask: list) -> Fault | None:
    """What is wrong with a list of polygons."""
    drawn = False
    for points in mask:
        if not isinstance(points, list) or not finite(points):
            what = f"has the polygon {_short(points)}; allowed: a list of finite numbers x, y, x, …"
            return "points", what
        if len(points) % 2:
            return "odd", f"has a polygon of {len(points)} numbers; allowed: x, y of each point"
        drawn |= len(points) >= LEAST_NUMBERS
    if drawn:
        return None
    return "polygon", "has a segmentation without any polygon: x, y of three or more points"


def runs_fault(counts: list, pixels: int) -> Fault | None:
    """What is wrong with run lengths that are given as numbers, for an image of ``pixels``."""
    if not set(map(type, counts)) <= {int}:
        wrong = next(each for each in counts if type(each) is not int)
        return _count_fault(wrong)
    if counts and min(counts) < 0:
        return _count_fault(min(counts))
    return None if sum(counts) == pixels else _sum_fault(sum(counts), pixels)


def _count_fault(count: object) -> Fault:
    return "count", f"has an RLE with the count {count!r}; allowed: whole numbers from 0"


def _sum_fault(total: int, pixels: int) -> Fault:
    return "sum", f"has an RLE whose counts sum to {total}, but its image has {pixels} pixels"


class CompressedRuns:
    """Run lengths as pycocotools' text, gathered over a file and judged many at a time."""

    def __init__(self):
        self._ids: list[Id] = []
        self._texts: list[str] = []
        self._pixels: list[int] = []
        self._held = 0
        self._faults: list[tuple[Id, Fault]] = []

    def add(self, id: Id, text: str, pixels: int) -> None:
        """Take in the ``counts`` of annotation ``id``, whose image has ``pixels``."""
        if fault := _text_fault(text):
            self._faults.append((id, fault))
            return
        self._ids.append(id)
        self._texts.append(text)
        self._pixels.append(pixels)
        self._held += len(text)
        if self._held >= CHUNK:
            self._judge()

    def faults(self) -> Iterator[tuple[Id, Fault]]:
        """Every (annotation id, fault) of what was taken in."""
        self._judge()
        yield from self._faults

    def _judge(self) -> None:
        if not self._texts:
            return
        counts, owner, broken = decoded(self._texts)
        texts = len(self._texts)
        first = np.searchsorted(owner, np.arange(texts))
        sums = np.add.reduceat(counts, first)
        least = np.minimum.reduceat(counts, first)
        wrong = broken | (least < 0) | (sums != np.array(self._pixels))
        for place in np.flatnonzero(wrong).tolist():
            if broken[place]:
                fault = "cut", "has an RLE whose counts end in the middle of a number"
            elif least[place] < 0:
                fault = _count_fault(int(least[place]))
            else:
                fault = _sum_fault(int(sums[place]), self._pixels[place])
            self._faults.append((self._ids[place], fault))
        self._ids, self._texts, self._pixels, self._held = [], [], [], 0


def _text_fault(text: str) -> Fault | None:
    if text.startswith(("b'", 'b"')):
        return "bytes", (
            f"has an RLE whose counts are {_short(text)}, Python's print of bytes; "
            "allowed: the text itself, in Python counts.decode()"
        )
    if not text:
        return "empty", "has an RLE whose counts are empty"
    if not TEXT.fullmatch(text):
        return "text", f"has an RLE whose counts are {_short(text)}, no text of pycocotools"
    return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def decoded(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The run lengths in texts of pycocotools, none empty, of characters '0' to 'o' alone.

    Returns:
        The counts of all texts one after another, int64 [N]; which text each is of, [N]; and
        whether a text ends within a number or holds one of more than 35 bits, bool [texts].

    A character is six bits: five of a number, the lowest first, and whether the number continues.
    From the fourth count on each number is the difference to the count two before.
    (pycocotools, common/maskApi.c, rleFrString)
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    digits = np.frombuffer("".join(texts).encode("ascii"), np.uint8).astype(np.int64) - FIRST
    ends_number = digits & MORE == 0
    ends_text = np.cumsum(lengths) - 1
    broken = ~ends_number[ends_text]
    ends_number[ends_text] = True
    ends = np.flatnonzero(ends_number)
    sizes = np.diff(ends, prepend=-1)  # digits of each number
    starts = ends - sizes + 1
    place = np.arange(len(digits)) - np.repeat(starts, sizes)
    numbers = np.add.reduceat(ends_number, ends_text - lengths + 1, dtype=np.int64)  # of each text
    owner = np.repeat(np.arange(len(texts)), numbers)
    if (long := sizes > MOST_DIGITS).any():
        broken[owner[long]] = True
    place = np.minimum(place, MOST_DIGITS)
    values = np.add.reduceat((digits & VALUE) << (BITS * place), starts)
    negative = digits[ends] & SIGN != 0
    values -= negative * (np.int64(1) << (BITS * np.minimum(sizes, MOST_DIGITS)))
    values[broken[owner]] = 0
    index = np.arange(len(values)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    for parity in (1, 0):  # counts 1, 3, 5, … are one chain of differences, 2, 4, 6, … the other
        chain = np.flatnonzero((index > 0) & (index % 2 == parity))
        if len(chain):
            values[chain] = _sums_within(values[chain], owner[chain])
    return values, owner, broken


def _sums_within(values: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Cumulative sums that restart with each owner."""
    sums = np.cumsum(values)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    before = (sums - values)[first]
    return sums - np.repeat(before, np.diff(first, append=len(values)))
