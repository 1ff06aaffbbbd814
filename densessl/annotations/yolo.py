"""YOLO, as Ultralytics reads it: a text file an image, a line an object, in fractions of the image.

A line is the number of the class and then a box (centre x, centre y, width, height), a polygon
(x, y of three points or more), or, with ``kpt_shape`` in ``data.yaml``, a box and its keypoints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from densessl.core.text import BAD_YAML, yaml_fault

from .model import Category, Dataset, Object
from .reading import BadFile, below, box_fault, number, picture, text_of
from .shapes import hull

BOX = 4  # numbers, after that of the class
SLACK = 1e-3  # beyond 0 and 1, for who rounds
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
CLASS_FILES = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels")


def config(file: Path) -> dict[str, Any]:
    """``data.yaml``; BadFile."""
    try:
        found = yaml.safe_load(text_of(file))
    except BAD_YAML as error:
        raise BadFile(f"it is not YAML: {yaml_fault(error)}") from None
    if not isinstance(found, dict) or "names" not in found:
        raise BadFile("it has no 'names', the list of classes, as YOLO's data.yaml has")
    return found


def splits(file: Path) -> dict[str, list[Path]]:
    """``{split: folders or lists of images}`` of a ``data.yaml``; BadFile for a place that is not
    there."""
    content, found = config(file), {}
    for split, keys in SPLITS.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        if value is not None:
            paths = value if isinstance(value, list) else [value]
            found[split] = [_path(file, content, str(path)) for path in paths]
    return found


def _path(file: Path, content: Mapping, named: str) -> Path:
    """Where a split lies: below ``path``, or beside the file; Roboflow writes one ``../`` more."""
    base = Path(str(content.get("path") or "")).expanduser()
    tried = [
        folder / each
        for each in (named, named.removeprefix("../"))
        for folder in (file.parent / base, file.parent, file.parent / base.name)
    ]
    if (found := next((path for path in tried if path.exists()), None)) is None:
        raise BadFile(f"it names '{named}', which is not there (looked for {tried[0]})")
    return found


def images_of(split: Path) -> list[Path]:
    """The images of a folder, or those that a text file lists; BadFile."""
    if split.is_dir():
        return below(split)
    lines = [line.strip() for line in text_of(split).splitlines() if line.strip()]
    found = [split.parent / line for line in lines]
    for path, line in zip(found, lines, strict=True):
        if not path.is_file():
            raise BadFile(f"{split} lists '{line}', which is not there")
    return found


def labels_of(image: Path) -> Path:
    """Where an image's labels lie: in ``labels`` in place of the last ``images``, or beside it."""
    beside = image.with_suffix(".txt")
    parts = list(image.parts[:-1])
    if "images" not in parts:
        return beside
    last = len(parts) - 1 - parts[::-1].index("images")
    there = Path(*parts[:last], "labels", *parts[last + 1 :], beside.name)
    return beside if beside.is_file() and not there.is_file() else there


def read_yaml(data: Dataset, file: Path, splits: list[Path]) -> None:
    """The images of ``splits`` with their labels; classes and keypoints of ``file``."""
    try:
        content = config(file)
        data.categories += _categories(content)
        images = [image for split in splits for image in images_of(split)]
    except BadFile as error:
        data.fault(file, "", str(error))
        return
    shape = content.get("kpt_shape")
    _read(data, [(image, labels_of(image)) for image in images], shape)


def read_folder(data: Dataset, images: Path, labels: Path, classes: Path | None) -> None:
    """The images below one folder with the labels of the same names below another."""
    if classes is not None:
        try:
            names = [line.strip() for line in text_of(classes).splitlines() if line.strip()]
            data.categories += map(Category, names)
        except BadFile as error:
            data.fault(classes, "", str(error))
            return
    found = below(images)
    same = images == labels
    pairs = [
        (image, (image if same else labels / image.relative_to(images)).with_suffix(".txt"))
        for image in found
    ]
    _read(data, pairs, None)
    if classes is None:
        most = max((each.category for each in data.objects()), default=-1)
        data.categories += [Category(str(n)) for n in range(most + 1)]
        data.remarks.append(
            f"{labels}: there is no data.yaml and no {CLASS_FILES[0]}: classes have no names"
        )


def _categories(content: Mapping) -> list[Category]:
    names = content["names"]
    if isinstance(names, dict):
        try:
            names = [names[n] for n in range(len(names))]
        except KeyError:
            keys = ", ".join(map(str, list(names)[:5]))
            raise BadFile(f"its names have the keys {keys}; allowed: 0 to N-1") from None
    if not isinstance(names, list) or not names:
        raise BadFile(f"its names are {names!r}; allowed: a list of classes")
    points = _points(content.get("kpt_shape"))[0]
    mirrored = _mirrored(content.get("flip_idx"), points)
    named = content.get("kpt_names") or {}
    return [
        Category(
            str(name),
            _point_names(named.get(n) if isinstance(named, dict) else None, points),
            mirrored=mirrored,
        )
        for n, name in enumerate(names)
    ]


def _points(shape: object) -> tuple[int, int]:
    """How many keypoints an object has, and of how many numbers each: 2, or 3 with visibility."""
    if shape is None:
        return 0, 0
    if (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(each) is int for each in shape)
        and shape[0] > 0
        and shape[1] in (2, 3)
    ):
        return shape[0], shape[1]
    raise BadFile(f"its kpt_shape is {shape!r}; allowed: [points, 2] or [points, 3]")


def _mirrored(places: object, points: int) -> tuple[int, ...]:
    """``flip_idx``: of each keypoint the place of the one that it is in the mirror."""
    if places is None or not points:
        return ()
    if (
        isinstance(places, list)
        and all(type(each) is int for each in places)
        and sorted(places) == [*range(points)]
    ):
        return tuple(places)
    raise BadFile(f"its flip_idx is {places!r}; allowed: each of 0 to {points - 1}, once")


def _point_names(names: object, points: int) -> tuple[str, ...]:
    if isinstance(names, list) and len(names) == points:
        return tuple(map(str, names))
    return tuple(str(n) for n in range(1, points + 1))


def _read(data: Dataset, pairs: list[tuple[Path, Path]], shape: object) -> None:
    points = _points(shape)
    empty = 0
    for image, labels in pairs:
        found = picture(data, image, labels, "")
        if found is None:
            continue
        data.pictures.append(found)
        if not labels.is_file():
            empty += 1
            continue
        try:
            lines = text_of(labels).splitlines()
        except BadFile as error:
            data.fault(labels, "", str(error))
            continue
        for place, line in enumerate(lines, 1):
            if not line.strip():
                continue
            at = f"line {place}"
            try:
                each = _object(line.split(), found.size, points, len(data.categories), at)
            except BadFile as error:
                data.fault(labels, at, str(error))
                continue
            if fault := box_fault(each.box, found.size):
                data.fault(labels, at, fault)
            else:
                found.objects.append(each)
    if empty == len(pairs) and pairs:
        data.fault(pairs[0][1], "", "it is not there, and no image has labels")
    elif empty:
        data.remarks.append(
            f"{data.path}: {empty} of {len(pairs)} images have no file of labels: no object is "
            "in them"
        )


def _object(words: list[str], size, points: tuple[int, int], classes: int, at: str) -> Object:
    label = number(words[0], "the class")
    if label != int(label) or label < 0 or (classes and label >= classes):
        allowed = f"0 to {classes - 1}" if classes else "whole numbers from 0"
        raise BadFile(f"the class is {words[0]}; allowed: {allowed}")
    values = [number(word, "a coordinate") for word in words[1:]]
    count, each = points
    if count and len(values) != BOX + count * each:
        raise BadFile(
            f"it has {len(words)} numbers; allowed with kpt_shape [{count}, {each}]: "
            f"{1 + BOX + count * each}, a class, a box and the keypoints"
        )
    if not count and (len(values) < BOX or (len(values) > BOX and len(values) % 2)):
        raise BadFile(
            f"it has {len(words)} numbers; allowed: 5 (class, centre x, centre y, width, height), "
            "or a class and x, y of three points or more; keypoints need kpt_shape in data.yaml"
        )
    if count or len(values) == BOX:
        return _boxed(int(label), values, size, each, at)
    _require_fractions(values)
    polygon = _pixels(values, size)
    return Object(int(label), hull([polygon]), [polygon], at=at)


def _boxed(label: int, values: list[float], size, numbers: int, at: str) -> Object:
    width, height = size
    x, y, w, h = values[:BOX]
    sides = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    _require_fractions([x, y, w, h])
    box = _pixels(sides, size)
    found = Object(label, (box[0], box[1], box[2], box[3]), at=at)
    rest = values[BOX:]
    for start in range(0, len(rest), numbers or 1):
        px, py = rest[start] * width, rest[start + 1] * height
        seen = int(rest[start + 2]) if numbers == 3 else 2 * int(bool(px or py))
        if seen not in (0, 1, 2):
            raise BadFile(f"a keypoint's visibility is {rest[start + 2]:g}; allowed: 0, 1, 2")
        found.keypoints.append((px, py, seen) if seen else (0.0, 0.0, 0))
    return found


def _pixels(values: list[float], size: tuple[int, int]) -> list[float]:
    """Fractions as pixels, cut at the image's edges."""
    return [min(max(value, 0.0), 1.0) * size[place % 2] for place, value in enumerate(values)]


def _require_fractions(values: list[float]) -> None:
    for value in values:
        if not -SLACK <= value <= 1 + SLACK:
            raise BadFile(
                f"a coordinate is {value:g}; allowed: 0 to 1, fractions of the image's size"
            )
