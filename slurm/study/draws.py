"""Which images keep their labels: nested, by the seed, with the classes in their proportions.

Pure functions of numbers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

HANDFUL = 4  # images, of fewer nothing can be said
STREAM = 0x57D1  # keeps this generator apart from others of the same seed


@dataclass(frozen=True)
class Share:
    """So many ``images`` keep their labels, which are ``percent`` of all."""

    percent: float
    images: int

    @property
    def name(self) -> str:
        """What its folders are called."""
        return f"{self.percent:g}"


def draw(classes_of: Sequence[Collection[int]], count: int, seed: int) -> list[int]:
    """The numbers of ``count`` images in the order in which they are drawn; fewer are its start.

    First come images until every class has one, the rarest class first. Then each image is of the
    class that is furthest below its share of all images (iterative stratification, Sechidis et al.
    2011, one image at a time). ``classes_of``: of each image, numbers from 0; none is a class, too.
    """
    images = len(classes_of)
    classes = 1 + max((max(found, default=-1) for found in classes_of), default=-1)
    waiting: list[list[int]] = [[] for _ in range(classes + 1)]
    shuffled = np.random.default_rng((STREAM, seed)).permutation(images).tolist()
    for number in reversed(shuffled):
        for label in classes_of[number] or (classes,):
            waiting[label].append(number)
    totals = np.array([len(numbers) for numbers in waiting], float)
    have = np.zeros(classes + 1)
    first = np.where(totals > 0, 2 * images - totals, 0.0)  # ahead of any that has one already
    first[classes] = 0
    order: list[int] = []
    taken: set[int] = set()
    while len(order) < min(count, images):
        wanted = totals * (len(order) + 1) / images - have + np.where(have == 0, first, 0)
        wanted[[not numbers for numbers in waiting]] = -np.inf
        number = waiting[int(wanted.argmax())].pop()
        if number in taken:
            continue
        taken.add(number)
        order.append(number)
        have[list(classes_of[number]) or [classes]] += 1
    return order


def least(classes_of: Sequence[Collection[int]], seeds: Sequence[int]) -> int:
    """How many images :func:`draw` needs until each class has one, and at least a handful."""
    wanted = set().union(*classes_of)
    needed = HANDFUL
    for seed in seeds:
        missing = set(wanted)
        for place, number in enumerate(draw(classes_of, len(wanted), seed), 1):
            missing -= set(classes_of[number])
            if not missing:
                needed = max(needed, place)
                break
    return min(needed, len(classes_of))


def shares(images: int, percents: Sequence[float], needed: int) -> tuple[list[Share], list[str]]:
    """The shares that are measured, rising, and a sentence on each that is not as it was asked.

    One that would leave fewer than ``needed`` images is raised to these, and left out where another
    is as large.
    """
    found: dict[int, Share] = {}
    notes = []
    for percent in sorted(set(percents)):
        count = max(round(images * percent / 100), 1)
        asked = f"{percent:g} % of {images} labelled images are {count}"
        least_of_all = min(needed, images)
        if count >= least_of_all:
            if count not in found:
                found[count] = Share(percent, count)
            else:
                notes.append(f"{asked}, which {found[count].name} % are already: left out")
        elif least_of_all in found:
            notes.append(
                f"{asked}, and at least {needed} are needed (one of every class, and a handful), "
                f"which {found[least_of_all].name} % are already: left out"
            )
        else:
            share = Share(float(f"{100 * least_of_all / images:.3g}"), least_of_all)
            found[least_of_all] = share
            notes.append(
                f"{asked}; at least {needed} are needed (one of every class, and a handful), "
                f"so that it became {share.name} %"
            )
    return [found[count] for count in sorted(found)], notes
