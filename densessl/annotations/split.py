"""Which images train, which validate, and which keep their labels: by a seed, and on record."""

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from densessl.core import form
from densessl.core.errors import InputError
from densessl.core.names import one_line

from .draws import draw
from .model import ONE_CLASS, AnnotatedImage, Category, Dataset
from .reading import BadFile, text_of

ROBOFLOW = re.compile(r"(_(?:jpe?g|png|bmp|webp|tiff?))?\.rf\.\w+$")  # of a copy of an image
PARTS = re.compile(r"[_\-. ]+")
COUNTED = re.compile(r"[a-z]{0,5}\d+|frame|tile|img|image|row|col", re.IGNORECASE)
PARTED = 8  # numbers at the end of a name
AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*%|(\d+)(?: images)?")


def prefix(path: Path, most: int = PARTED) -> str:
    """What the frames of one video, or the tiles of one slide, have in common: the folder, and the
    name without the numbers at its end (``slide7`` of ``slide7_x3_y12.png``), ``most`` of them.

    What Roboflow adds to the name of a copy of an image (``.rf.3f2a``) does not count.
    """
    parts = PARTS.split(ROBOFLOW.sub("", path.stem))
    for _ in range(most):
        if len(parts) > 1 and COUNTED.fullmatch(parts[-1]):
            parts = parts[:-1]
    return f"{path.parent}/{'_'.join(parts)}"


def groups(data: Dataset, listed: Path | None = None) -> tuple[list[str], str]:
    """The group of each image, and how it was found: by a list, by the names, or each its own.

    ``listed``: lines of an image's name and its group, with a comma or a tab between. Where all
    images would be of one group, fewer numbers are cut from their names (``video_3_frame_0012`` is
    of ``video_3``), in the end none; and where images have one class each (class folders), so
    that a class is not one group (``cat/cat_0001``).
    """
    if listed is not None:
        return _listed(data, listed), f"groups of {listed}"
    for most in range(PARTED, 0, -1):
        found = [prefix(picture.path, most) for picture in data.pictures]
        whole = data.form in ONE_CLASS and _one_group(data, found)
        if 1 < (count := len(set(found))) < len(found) and not whole:
            return found, f"{count} groups of names that begin alike"
    return [str(picture.path) for picture in data.pictures], "each image by itself"


def _one_group(data: Dataset, found: list[str]) -> bool:
    """Whether all images of a class, of two or more, are of one group."""
    members: dict[int, list[str]] = defaultdict(list)
    for picture, group in zip(data.pictures, found, strict=True):
        members[picture.objects[0].category].append(group)
    return any(len(each) > 1 and len(set(each)) == 1 for each in members.values())


def _listed(data: Dataset, file: Path) -> list[str]:
    try:
        lines = text_of(file).splitlines()
    except BadFile as error:
        raise InputError(f"--groups {one_line(file)}: {error}") from None
    known: dict[str, str] = {}
    for place, line in enumerate(lines, 1):
        if line.strip():
            name, group = (part.strip() for part in re.split("[,\t]|$", line, maxsplit=1))
            if not group:
                raise InputError(
                    f"--groups {one_line(file)}: line {place} is '{one_line(line[:60])}'; allowed: "
                    "NAME,GROUP"
                )
            known[name] = group
    found, root = [], data.root
    for picture in data.pictures:
        names = picture.path.relative_to(root).as_posix(), picture.path.name, picture.path.stem
        group = next((known[name] for name in names if name in known), None)
        if group is None:
            raise InputError(f"--groups {one_line(file)} does not list the image '{names[0]}'")
        found.append(group)
    return found


def _classes(picture: AnnotatedImage) -> set[int]:
    return {each.category for each in picture.objects if not each.crowd}


def split(
    data: Dataset, percent: float, seed: int, listed: Path | None = None
) -> tuple[Dataset, Dataset, str]:
    """Training and validation, and how they were parted.

    Groups are drawn with the classes in their proportions until ``percent`` of the images are for
    validation; one that would make them more by half is passed over, and those that alone have a
    class are the last. Raises InputError where no group is small enough.
    """
    keys, how = groups(data, listed)
    members: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        members[key].append(number)
    inside = [set().union(*(_classes(data.pictures[n]) for n in m)) for m in members.values()]
    seen = Counter(label for found in inside for label in found)
    free = [{label for label in found if seen[label] > 1} for found in inside]
    wanted = max(round(len(data.pictures) * percent / 100), 1)
    numbers = list(members.values())
    taken: set[int] = set()
    order = draw(free, len(numbers), seed)
    for place in sorted(order, key=lambda place: inside[place] != free[place]):
        if len(taken) < wanted and len(taken) + len(numbers[place]) <= max(1.5 * wanted, 1):
            taken.update(numbers[place])
    if not taken and 2 * len(least := min(numbers, key=len)) <= len(data.pictures):
        taken.update(least)
    if not taken or len(taken) == len(data.pictures):
        raise InputError(
            f"{one_line(data.path)}: {len(data.pictures)} images in {len(numbers)} groups ({how}) "
            f"cannot be parted so that about {percent:g} % validate: name --val, or --groups FILE"
        )
    train = [each for n, each in enumerate(data.pictures) if n not in taken]
    val = [each for n, each in enumerate(data.pictures) if n in taken]
    summary = f"{len(val)} of {len(data.pictures)} images by seed {seed}, {how}"
    return replace(data, pictures=train), replace(data, pictures=val), summary


def amount(text: str, images: int | None = None) -> int:
    """How many of ``images`` are ``1%``, or ``300``; InputError that names ``--labels``. Without
    ``images`` the form alone is checked."""
    found = AMOUNT.fullmatch(text.strip())
    count, most = 0, form.LARGEST if images is None else images
    if found:
        share, number = found.groups()
        count = max(round(most * float(share) / 100), 1) if share else int(number)
    if not found or not 1 <= count <= most or (found[1] and float(found[1]) == 0):
        to = f"from 1 to {images}" if images else "above 0"
        raise InputError(
            f"--labels is '{text}'; allowed: a share above 0 % as 10%, or a number of images {to}"
        )
    return count


def percent(text: str) -> float | None:
    """10.0 of ``10%``; None of a number of images."""
    found = AMOUNT.fullmatch(text.strip())
    return float(found[1]) if found and found[1] else None


def labelled(data: Dataset, text: str, seed: int) -> Dataset:
    """The images that keep their labels: of one seed those of 1 % are among those of 10 %.

    Drawn with the classes in their proportions; the others are left out.
    """
    count = amount(text, len(data.pictures))
    kept = sorted(draw([_classes(each) for each in data.pictures], count, seed))
    return replace(data, pictures=[data.pictures[number] for number in kept])


def agree(*sets: Dataset) -> None:
    """Give data sets one list of classes, by their names: the first one's, then what others add."""
    merged = {each.name: each for data in reversed(sets) for each in data.categories}
    names = list(dict.fromkeys(each.name for data in sets for each in data.categories))
    ids = [{each.id for data in sets for each in data.categories if each.name == n} for n in names]
    same = all(len(each) == 1 and None not in each for each in ids)
    same = same and len(set().union(*ids)) == len(names)
    categories: list[Category] = [
        merged[name] if same else replace(merged[name], id=None) for name in names
    ]
    for data in sets:
        places = [names.index(each.name) for each in data.categories]
        for each in data.objects():
            each.category = places[each.category]
        data.categories = categories


def facts(data: Dataset) -> dict[str, Any]:
    """What a run's record says of a data set."""
    return {
        "path": str(data.path),
        "format": data.form,
        "split": data.split,
        "images": len(data.pictures),
        "objects": sum(len(each.objects) for each in data.pictures),
    }
