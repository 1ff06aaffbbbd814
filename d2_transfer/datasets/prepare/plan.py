"""What is to be written: label images, each from one file, and lists of names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Item:
    """A label image: ``target``, made of ``source``, for the picture ``image``."""

    source: Path
    target: Path
    image: Path


@dataclass(frozen=True)
class Plan:
    """All label images of a data set.

    ``labels(item)`` gives the numbers of one, uint8 [height, width], or raises BadLabels; it runs
    in other processes, so it is a function of a module. ``lists``: text files, written last.
    ``counts``: the images of each data set that is then complete.
    """

    items: list[Item]
    labels: Callable[[Item], np.ndarray]
    counts: dict[str, int]
    lists: dict[Path, str] = field(default_factory=dict)
