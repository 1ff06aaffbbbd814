"""What is found in one of the user's annotation files."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .coco_content import Id

Size = tuple[int, int]  # width, height


@dataclass
class Annotations:
    """One annotation file, and what is wrong with it.

    ``problems`` stop a run, ``remarks`` do not. ``names``: of the categories, by id, and ``above``
    each its supercategory, where it has one; ``paths`` and ``sizes``: of the images, by id;
    ``trained``: the ids of the images with an object to train on; ``used``: how many objects a
    category has, 0 where it has crowds only; ``rle``: whether an object has an RLE mask.
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
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
