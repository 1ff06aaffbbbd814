"""The keypoints of the user's own objects: their names, and which is which in a mirror."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from densessl.annotations.coco import MIRRORED

from .inspection import some

OF_A_SIDE = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
PAIRS = tuple(f"{side}_{part}" for part in OF_A_SIDE for side in ("left", "right"))
COCO_PERSON = ("nose", *PAIRS)  # of which the metric knows sigmas
SIGMA = 0.067  # the mean of COCO's 17
SIDES = re.compile(r"(?<![a-z])(left|right|l|r)(?![a-z])", re.IGNORECASE)
OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True)
class Keypoints:
    """One list of keypoints for all classes, as Detectron2 has it: ``names``, ``bones`` (pairs from
    1), and ``mirrored``: which one each is in the mirror, from 0; empty where nothing says it."""

    names: tuple[str, ...] = ()
    bones: tuple[tuple[int, int], ...] = ()
    mirrored: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def flip_map(self) -> list[tuple[str, str]]:
        """Pairs of names that change places in the mirror."""
        return [
            (self.names[here], self.names[there])
            for here, there in enumerate(self.mirrored)
            if here < there
        ]

    @property
    def sigmas(self) -> list[float]:
        """Of the metric: empty for COCO's own 17, which it knows; else equal."""
        return [] if self.names == COCO_PERSON else [SIGMA] * len(self.names)


def of_categories(categories: list[dict], annotations: list[dict]) -> Keypoints:
    """The keypoints that the categories with annotations name; without names they are numbered.

    Raises ValueError that says what does not fit.
    """
    used = {each.get("category_id") for each in annotations}
    named = [each for each in categories if each.get("keypoints") and each["id"] in used]
    lists = {tuple(map(str, each["keypoints"])): each["name"] for each in named}
    if len(lists) > 1:
        first, second = [*lists][:2]
        raise ValueError(
            f"'{lists[first]}' has {len(first)} keypoints ({some(first)}) and '{lists[second]}' "
            f"{len(second)} ({some(second)}); allowed: the same of all classes"
        )
    if not lists:
        given = (each.get("keypoints") for each in annotations)
        counts = [len(each) // 3 for each in given if isinstance(each, list) and each]
        if not counts:
            raise ValueError("no object has keypoints, which custom_keypoint needs")
        return Keypoints(tuple(map(str, range(1, counts[0] + 1))))
    (names,) = lists
    if len(set(names)) < len(names):
        raise ValueError(f"names of keypoints are there twice: {some(names)}")
    bones = tuple((bone[0], bone[1]) for bone in named[0].get("skeleton") or () if len(bone) == 2)
    return Keypoints(names, bones, tuple(named[0].get(MIRRORED) or ()) or mirrored(names))


def mirrored(names: Sequence[str]) -> tuple[int, ...]:
    """By names such as ``left_eye``, ``eye R``; empty where none has a side."""
    places = {name: place for place, name in enumerate(names)}
    found = tuple(places.get(_other_side(name), place) for place, name in enumerate(names))
    pairs = all(found[there] == here for here, there in enumerate(found))
    return found if pairs and found != tuple(range(len(names))) else ()


def _other_side(name: str) -> str:
    def swapped(match: re.Match) -> str:
        other = OTHER[match[0].lower()]
        return (
            other.upper()
            if match[0].isupper()
            else (other.capitalize() if match[0][0].isupper() else other)
        )

    return SIDES.sub(swapped, name, count=1)
