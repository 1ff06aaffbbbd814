"""Which shares of the images keep their labels, by what they must hold at least.

Pure functions of numbers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from densessl.annotations.draws import draw

HANDFUL = 4  # images, of fewer nothing can be said


@dataclass(frozen=True)
class Share:
    """So many ``images`` keep their labels, which are ``percent`` of all."""

    percent: float
    images: int

    @property
    def name(self) -> str:
        """What its folders are called."""
        return f"{self.percent:g}"


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
