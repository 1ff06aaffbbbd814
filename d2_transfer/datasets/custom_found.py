"""What is found in one of the user's annotation files, and its faults, said once a kind."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from .coco_content import Id
from .custom_keypoints import Keypoints
from .inspection import some

Size = tuple[int, int]  # width, height


@dataclass
class Annotations:
    """One annotation file, and what is wrong with it.

    ``problems`` stop a run, ``remarks`` do not. ``names``: of the categories, by id, and ``above``
    each its supercategory, where it has one; ``paths`` and ``sizes``: of the images, by id;
    ``trained``: the ids of the images with an object to train on; ``used``: how many objects a
    category has, 0 where it has crowds only; ``rle``: whether an object has an RLE mask;
    ``keypoints``: where they are needed.
    """

    file: Path
    folder: Path
    sha256: str = ""
    names: dict[Id, str] = field(default_factory=dict)
    above: dict[Id, str] = field(default_factory=dict)
    paths: dict[Id, Path] = field(default_factory=dict)
    sizes: dict[Id, Size] = field(default_factory=dict)
    trained: set[Id] = field(default_factory=set)
    used: Counter[Id] = field(default_factory=Counter)
    rle: bool = False
    keypoints: Keypoints = field(default_factory=Keypoints)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


MARGIN = 1.0  # pixels that a box may reach beyond its image without a remark


def shown(id: object) -> str:
    """An id as JSON has it: 1 and '1' are two."""
    return repr(id)


class Faults:
    """Faults of one kind of entry, counted by what is wrong; each is said with its first entry."""

    def __init__(self, file: Path, entry: str):
        self.file, self.entry = file, entry
        self.first: dict[str, str] = {}
        self.ids: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, id: str, what: str) -> None:
        """``what``: a sentence about the entry ``id`` (as :func:`shown`), without its subject."""
        self.first.setdefault(kind, f"{self.file}: {self.entry} {id} {what}")
        self.ids[kind].append(id)

    def messages(self) -> list[str]:
        """A line a kind: the first in full, and the ids of the next."""
        return [
            first + (f"; the same of {some(self.ids[kind][1:])}" if self.ids[kind][1:] else "")
            for kind, first in self.first.items()
        ]


class Boxes:
    """How boxes lie in their images, taken as x, y, width, height and in two other ways."""

    def __init__(self):
        self.total = self.beyond = self.corners = self.fractions = 0

    def count(self, box: list[float], size: tuple[int, int]) -> None:
        """Take in a box of an image of ``size`` (width, height)."""
        a, b, c, d = box
        width, height = size[0] + MARGIN, size[1] + MARGIN
        self.total += 1
        self.beyond += min(a, b) < -MARGIN or a + c > width or b + d > height
        self.corners += 0 <= a < c <= width and 0 <= b < d <= height
        self.fractions += max(box) <= 1

    def problem(self) -> str | None:
        """The mistake that the boxes have in common, if there is one."""
        if self.total and self.fractions == self.total:
            return "every bbox is within 0 and 1, as fractions are; COCO's are pixels"
        if 2 * self.beyond > self.total and self.corners == self.total:
            return (
                f"{self._beyond()}, and all fit as x1, y1, x2, y2; COCO's are x, y, width, height"
            )
        return None

    def remark(self) -> str | None:
        """What may be a mistake."""
        return f"{self._beyond()}; they are cut there" if self.beyond else None

    def _beyond(self) -> str:
        return f"{self.beyond} of {self.total} boxes reach beyond their images"
