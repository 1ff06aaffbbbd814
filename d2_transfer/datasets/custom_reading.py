"""The user's own annotations in COCO's format, read and checked before anything runs.

Detectron2 and pycocotools meet most of these faults hours later, or never and with wrong numbers.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from densessl.annotations.coco import SKELETON
from densessl.annotations.coco_masks import finite
from densessl.core import form
from densessl.core.files import decode
from densessl.decoding import size_of
from densessl.probes import label_images
from densessl.probes.label_images import BadLabels

from .coco_content import Id, no_garbage_collection, ordered
from .custom_found import Annotations, Faults, shown
from .custom_keypoints import of_categories
from .custom_objects import Objects
from .inspection import Inspection, some, spread


def read(
    file: Path,
    folder: Path,
    need_masks: bool,
    evaluated: bool,
    text: bytes | None = None,
    need_keypoints: bool = False,
) -> Annotations:
    """Read and check one file; every fault is in ``problems`` of what is returned.

    ``need_masks``, ``need_keypoints``: objects need them; ``evaluated``: it serves the evaluation,
    which reads the ``area``, too. ``text``: what the file will hold, where it is not there yet.
    """
    found = Annotations(file, folder)
    with no_garbage_collection():
        _read_into(found, need_masks, need_keypoints, evaluated, text)
    return found


def _read_into(
    found: Annotations,
    need_masks: bool,
    need_keypoints: bool,
    evaluated: bool,
    text: bytes | None,
) -> None:
    content = _content(found, text)
    for kind in KEYS:
        if not found.problems:
            _check_entries(found, kind, content[kind])
    if not found.problems:
        images, categories = content["images"], content["categories"]
        by_id = {each["id"]: each for each in categories}
        found.names = {id: by_id[id]["name"] for id in ordered(by_id)}
        found.above = {id: by_id[id].get("supercategory") for id in found.names}
        found.paths = {each["id"]: found.folder / each["file_name"] for each in images}
        found.sizes = {each["id"]: (each["width"], each["height"]) for each in images}
        _check_pictures(found)
        if need_keypoints:
            _read_keypoints(found, content)
        Objects(found, need_masks, evaluated).check(content["annotations"])


def _read_keypoints(found: Annotations, content: dict) -> None:
    try:
        for each in content["categories"]:
            given = {key: each.get(key) or [] for key in SKELETON}
            if wrong := form.fault(given, SKELETON):
                raise ValueError(f"category {shown(each['id'])}: {wrong}")
        found.keypoints = of_categories(content["categories"], content["annotations"])
    except ValueError as error:
        found.problems.append(f"{found.file}: {error}")


# The file ---------------------------------------------------------------------------------------


def _content(found: Annotations, text: bytes | None) -> dict:
    try:
        data = found.file.read_bytes() if text is None else text
        found.sha256 = hashlib.sha256(data).hexdigest()
        content = json.loads(decode(data))
    except FileNotFoundError:
        found.problems.append(f"{found.file} is not there")
        return {}
    except OSError as error:
        found.problems.append(f"{found.file} cannot be read: {error.strerror}")
        return {}
    except ValueError as error:  # JSON's and Unicode's
        found.problems.append(f"{found.file} is not JSON: {error}")
        return {}
    if not isinstance(content, dict):
        found.problems.append(f"{found.file} is JSON, but not an object with {', '.join(KEYS)}")
        return {}
    for kind in KEYS:
        if not isinstance(content.get(kind), list):
            found.problems.append(f"{found.file} has no list '{kind}', as COCO's format has")
        elif not content[kind]:
            found.problems.append(f"{found.file} has an empty list '{kind}'")
    return content


def _is_whole(value: object) -> bool:
    return type(value) is int  # and no bool


def _is_id(value: Any) -> bool:
    kind = type(value)
    return kind is int or kind is str or (kind is float and math.isfinite(value))


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and finite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


Rule = tuple[Callable[[Any], bool], str]
ID: Rule = (_is_id, "a number or a text")
NAME: Rule = (_is_text, "a text")
LENGTH: Rule = (lambda value: _is_whole(value) and value > 0, "a whole number from 1")
BOX: Rule = (_is_box, "four numbers: x, y, width, height")
KEYS: dict[str, dict[str, Rule]] = {  # the lists of the format, and what each entry must have
    "images": {"id": ID, "file_name": NAME, "width": LENGTH, "height": LENGTH},
    "annotations": {"id": ID, "image_id": ID, "category_id": ID, "bbox": BOX},
    "categories": {"id": ID, "name": NAME},
}
SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


def _check_entries(found: Annotations, kind: str, entries: list) -> None:
    """Every entry has its keys with usable values, and every id is there once."""
    faults = Faults(found.file, SINGULAR[kind])
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            faults.add("object", f"number {number}", "is no JSON object")
            continue
        name = shown(entry["id"]) if "id" in entry else f"number {number}"
        for key, (fits, allowed) in KEYS[kind].items():
            if key not in entry:
                faults.add(key, name, f"lacks '{key}'")
            elif not fits(entry[key]):
                faults.add(key, name, f"has {key} {entry[key]!r}; allowed: {allowed}")
    found.problems += faults.messages()
    if not found.problems and (again := _doubled([each["id"] for each in entries])):
        found.problems.append(f"{found.file}: ids of {kind} are there twice: {some(again)}")


def _doubled(ids: list[Id]) -> list[str]:
    """Each id that is there more than once, as it is written: 1 and 1.0 are one number."""
    again = {id for id, n in Counter(ids).items() if n > 1}
    written: dict[Id, dict[str, None]] = defaultdict(dict)
    for id in ids if again else ():
        if id in again:
            written[id][shown(id)] = None
    return [" and ".join(each) for each in written.values()]


# Images -----------------------------------------------------------------------------------------


def _check_pictures(found: Annotations) -> None:
    """Every image is in its folder, and those of a sample have the size that the file says."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in found.paths.values():
        by_folder[path.parent].append(path)
    absent = []
    listing = Inspection()
    for folder, paths in by_folder.items():
        there = listing.folder(folder)
        absent += [path for path in paths if there is not None and path.name not in there]
    found.problems += [f"{found.file}: {problem}" for problem in listing.problems]
    if absent:
        found.problems.append(
            f"{found.file} lists {len(found.paths)} images, of which {len(absent)} are not "
            f"there: {some(absent)}"
        )
    if listing.problems or absent:
        return
    wrong = [problem for id in spread(list(found.paths)) if (problem := _size_problem(found, id))]
    found.problems += wrong[:1]
    if len(wrong) > 1:
        found.problems.append(f"and the like in {len(wrong) - 1} more of a sample of its images")


def _size_problem(found: Annotations, id: Id) -> str | None:
    path = found.paths[id]
    try:
        size = label_images.picture_size(path)
    except BadLabels as error:
        return str(error)
    if size == found.sizes[id]:
        return None
    stated, real = ("×".join(map(str, each)) for each in (found.sizes[id], size))
    turned = "" if size == size_of(path, upright=False) else ", turned as its EXIF data say"
    return f"{found.file}: image {id} is {stated} pixels, but {path} is {real}{turned}"
