"""Doing a plan: in several processes, resumed after a stop, without overwriting anything."""

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from densessl.core import files, pool
from densessl.core.errors import EnvironmentLacks
from densessl.core.progress import Bar
from densessl.probes import label_images
from densessl.probes.label_images import BadLabels

from .plans import Item, PreparationPlan

CHUNK = 16  # label images between two counts; a stop waits for those that have begun
BLOCK = 4096  # bytes of disk that the smallest file takes
REMEDY = "nothing is overwritten: remove it and run the same command again"
Labels = Callable[[Item], np.ndarray]


@dataclass
class PreparedLabels:
    """How many label images were written, how many were right already, and what went wrong."""

    written: int = 0
    right: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: "PreparedLabels") -> None:
        self.written += other.written
        self.right += other.right
        self.problems += other.problems


def check_disk(plan: PreparationPlan) -> None:
    """EnvironmentLacks when what is to be written would not fit; a label image takes about as much
    as what it is made of."""
    absent = [item for item in plan.items if not item.target.exists()]
    if not absent:
        return
    needed = sum(item.source.stat().st_size + BLOCK for item in absent)
    folder = absent[0].target.parent
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise EnvironmentLacks(
            f"{len(absent)} label images need about {needed / 1e9:.2f} GB, and the disk of {there} "
            f"has {free / 1e9:.2f} GB left; free some"
        )


def run(plan: PreparationPlan, workers: int) -> PreparedLabels:
    """Write every label image that is not there, compare those that are, then write the lists.

    The lists come only when all is right: they say that the data set is whole.
    """
    total = PreparedLabels()
    chunks = [plan.items[n : n + CHUNK] for n in range(0, len(plan.items), CHUNK)]
    work = functools.partial(write_chunk, plan.labels)
    results = pool.results(work, chunks, min(workers, len(chunks)), option="--workers")
    with Bar("labels", len(plan.items)) as bar, results as outcomes:
        for outcome in outcomes:
            total.add(outcome)
            bar.advance(outcome.written + outcome.right + len(outcome.problems))
    if not total.problems:
        for path, text in plan.lists.items():
            total.add(_write_list(path, text))
    return total


def write_chunk(labels: Labels, items: list[Item]) -> PreparedLabels:
    """Write some label images."""
    outcome = PreparedLabels()
    for item in items:
        outcome.add(write_one(labels, item))
    return outcome


def write_one(labels: Labels, item: Item) -> PreparedLabels:
    """Write one label image, or compare the one that is there. Errors in writing are raised."""
    try:
        values = labels(item)
    except BadLabels as error:
        return PreparedLabels(problems=[str(error)])
    if not item.target.exists():
        picture = Image.fromarray(values)
        files.write_atomic(item.target, lambda stream: picture.save(stream, "PNG"))
        return PreparedLabels(written=1)
    try:
        there = label_images.read(item.target, palette=False)
    except BadLabels as error:
        return PreparedLabels(problems=[f"{error}; {REMEDY}"])
    if np.array_equal(there, values):
        return PreparedLabels(right=1)
    return PreparedLabels(
        problems=[f"{item.target} is there with other labels than {item.source} gives; {REMEDY}"]
    )


def _write_list(path: Path, text: str) -> PreparedLabels:
    if not path.exists():
        files.write_text(path, text)
    elif path.read_bytes() != text.encode():
        return PreparedLabels(problems=[f"{path} is there with other names; {REMEDY}"])
    return PreparedLabels()
