"""Training and validation data of the user's own, as the flags of ``transfer`` name them."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densessl.annotations import split
from densessl.annotations.model import AnnotatedImage, AnnotationSource, Dataset, listed
from densessl.annotations.sources import chosen
from densessl.core.errors import InputError
from densessl.core.names import one_line
from densessl.decoding import parse_channel_files
from densessl.decoding.channel_files import names_of

KEPT = re.compile(r"(.+): (\d+) of (\d+) images by seed (\d+)")  # facts["labels"]
SHARE = 20  # per cent of the images that validate where nothing says which


@dataclass(frozen=True)
class Parted:
    """Two data sets with one list of classes, and what a run's record says of them."""

    train: Dataset
    val: Dataset
    facts: dict[str, Any]


def read(
    recognise: Callable[[str | os.PathLike], Sequence[AnnotationSource]],
    train: str | os.PathLike,
    val: str | os.PathLike | None = None,
    val_share: int | None = None,
    groups: str | os.PathLike | None = None,
    labels: str | None = None,
    data_seed: int | None = None,
    channel_files: str | None = None,
    check: Callable[[Sequence[Dataset]], None] = lambda sets: None,
) -> Parted:
    """What ``recognise`` finds at the two paths; InputError with every fault.

    Without ``val``, the validation data are those of ``train`` itself where it has some, else
    ``val_share`` per cent of its images, drawn by ``data_seed`` in groups (``split.split``).
    ``labels``: so many of the training images, drawn by the same seed. ``channel_files``: the words
    that the names of an image's files differ in; those that only belong to another one are left
    out. ``check``: is given what was read, and raises InputError for what else must hold of it.
    """
    seed = data_seed or 0
    sources = recognise(train)
    trained = chosen(sources, train, "train").read()
    if val is None and trained.split == "train":
        val = train if any(each.split == "val" for each in sources) else None
    if val is not None and (val_share is not None or groups is not None):
        name, value = ("--groups", groups) if val_share is None else ("--val-share", val_share)
        raise InputError(f"{name} is '{value}', but {one_line(val)} has the validation data")
    evaluated = None if val is None else chosen(recognise(val), val, "val").read()
    sets = (trained, evaluated) if evaluated else (trained,)
    words = parse_channel_files(channel_files or "", "--channel-files")
    for data in sets if words else ():
        _join(data, words)
    _require_sound(*sets)
    check(sets)
    how = ""
    if evaluated is None:
        listed = None if groups is None else Path(groups)
        trained, evaluated, how = split.split(trained, val_share or SHARE, seed, listed)
    split.agree(trained, evaluated)
    facts: dict[str, Any] = {"train": split.facts(trained), "val": split.facts(evaluated)}
    if words:
        facts["channel_files"] = ",".join(words)
    if how:
        facts["validation"] = how
    if labels is not None:
        every = len(trained.pictures)
        trained = split.labelled(trained, labels, seed)
        facts["train"] = split.facts(trained)
        facts["labels"] = f"{labels}: {len(trained.pictures)} of {every} images by seed {seed}"
    for remark in dict.fromkeys((*trained.remarks, *evaluated.remarks)):
        logging.getLogger("densessl").warning("%s", one_line(remark))
    return Parted(trained, evaluated, facts)


def _require_sound(*sets: Dataset) -> None:
    if all(data.faults for data in sets):
        both = [each for data in sets for each in data.faults]
        raise InputError(listed("the annotations cannot be used as they are:", both))
    for data in sets:
        data.require_sound()


def labels(facts: dict[str, Any]) -> dict[str, Any]:
    """Of ``facts`` what a record says of the images that kept their labels; empty of all."""
    found = KEPT.fullmatch(facts.get("labels", ""))
    if not found:
        return {}
    amount, count, every, seed = found.groups()
    return {"amount": amount, "percent": 100 * int(count) / int(every), "seed": int(seed)}


def drawn(facts: dict[str, Any]) -> str:
    """How they were drawn, to end a line with."""
    return "".join(f"; {name}: {facts[name]}" for name in ("validation", "labels") if name in facts)


def _join(data: Dataset, words: Sequence[str]) -> None:
    """Of the files of each image keep the first that has objects, else the first, as the image.

    ``words``: as :mod:`densessl.decoding.channel_files` has them; images without any of them stay
    as they are. A file that is not there is a fault, and so are other objects in another file.
    """
    images: dict[tuple[str, ...], list[AnnotatedImage]] = defaultdict(list)
    for picture in data.pictures:
        path = os.fspath(picture.path)
        images[names_of(path, words) or (path,)].append(picture)
    data.pictures = []
    for names, pictures in images.items():
        first, *others = [each for each in pictures if each.objects] or pictures[:1]
        data.pictures.append(first)
        for name in names:
            if not os.path.isfile(name):
                data.fault(first.path, "", f"the file of another channel is not there: {name}")
        for other in others:
            if _boxes(other) != _boxes(first):
                data.fault(
                    other.path, "", f"other objects than in {first.path.name}, of the same image"
                )
    data.pictures.sort(key=lambda each: each.path)


def _boxes(picture: AnnotatedImage) -> list[tuple]:
    return [(each.category, each.box) for each in picture.objects]
