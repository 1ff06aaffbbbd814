"""The user's own annotations in COCO's format, read and checked before anything runs.

Detectron2 and pycocotools meet most of these faults hours later, or never and with wrong numbers.
"""

import gc
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from . import label_images
from .custom_faults import Boxes, Faults
from .inspection import Inspection, some, spread
from .label_images import BadLabels

EVALUATED = ("area", "iscrowd")  # of annotations: what pycocotools reads beside KEYS
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF; the values that swap width and height

Size = tuple[int, int]  # width, height


@dataclass
class Annotations:
    """One annotation file, and what is wrong with it.

    ``problems`` stop a run, ``remarks`` do not. ``names``: of the categories, by id; ``paths`` and
    ``sizes``: of the images, by id; ``trained``: the ids of the images with an object to train on;
    ``rle``: whether such an object has an RLE mask.
    """

    file: Path
    folder: Path
    sha256: str = ""
    names: dict[int, str] = field(default_factory=dict)
    paths: dict[int | str, Path] = field(default_factory=dict)
    sizes: dict[int | str, Size] = field(default_factory=dict)
    trained: set[int | str] = field(default_factory=set)
    rle: bool = False
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def read(file: Path, folder: Path, need_masks: bool, evaluated: bool) -> Annotations:
    """Read and check one file; every fault is in ``problems`` of what is returned.

    ``need_masks``: objects need a segmentation; ``evaluated``: it serves the evaluation, which
    needs ``area`` and ``iscrowd``.
    """
    found = Annotations(file, folder)
    with _no_garbage_collection():
        _read_into(found, need_masks, evaluated)
    return found


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """With files as large as COCO's it takes most of the time: it goes through the millions of
    objects that are there again and again, and none is garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _read_into(found: Annotations, need_masks: bool, evaluated: bool) -> None:
    content = _content(found)
    for kind in KEYS:
        if not found.problems:
            _check_entries(found, kind, content[kind])
    if not found.problems:
        images, categories = content["images"], content["categories"]
        found.names = dict(sorted((each["id"], each["name"]) for each in categories))
        found.paths = {each["id"]: found.folder / each["file_name"] for each in images}
        found.sizes = {each["id"]: (each["width"], each["height"]) for each in images}
        _check_names(found)
        _check_pictures(found)
        _check_annotations(found, content["annotations"], need_masks, evaluated)


# The file ---------------------------------------------------------------------------------------


def _content(found: Annotations) -> dict:
    try:
        text = found.file.read_bytes()
        found.sha256 = hashlib.sha256(text).hexdigest()
        content = json.loads(text)
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
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (_is_whole(value) or isinstance(value, float)) and _all_finite([value])


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and _all_finite(value)


def _all_finite(values: list) -> bool:
    try:
        return math.isfinite(sum(values))  # in one call: COCO's polygons have 30 million numbers
    except (TypeError, OverflowError):
        return False


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


Rule = tuple[Callable[[object], bool], str]
WHOLE: Rule = (_is_whole, "a whole number")
NAME: Rule = (_is_text, "a text")
IMAGE_ID: Rule = (lambda value: _is_whole(value) or _is_text(value), "a whole number or a text")
LENGTH: Rule = (lambda value: _is_whole(value) and value > 0, "a whole number from 1")
BOX: Rule = (_is_box, "four numbers: x, y, width, height")
KEYS: dict[str, dict[str, Rule]] = {  # the lists of the format, and what each entry must have
    "images": {"id": IMAGE_ID, "file_name": NAME, "width": LENGTH, "height": LENGTH},
    "annotations": {"id": WHOLE, "image_id": IMAGE_ID, "category_id": WHOLE, "bbox": BOX},
    "categories": {"id": WHOLE, "name": NAME},
}
SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}


def _check_entries(found: Annotations, kind: str, entries: list) -> None:
    """Every entry has its keys with usable values, and every id is there once."""
    faults = Faults(found.file, SINGULAR[kind])
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            faults.add("object", f"number {number}", "is no JSON object")
            continue
        name = entry.get("id", f"number {number}")
        for key, (fits, allowed) in KEYS[kind].items():
            if key not in entry:
                faults.add(key, name, f"lacks '{key}'")
            elif not fits(entry[key]):
                faults.add(key, name, f"has {key} {entry[key]!r}; allowed: {allowed}")
    found.problems += faults.said()
    if not found.problems:
        again = [id for id, n in Counter(each["id"] for each in entries).items() if n > 1]
        if again:
            found.problems.append(f"{found.file}: ids of {kind} are there twice: {some(again)}")


def _check_names(found: Annotations) -> None:
    if again := [name for name, n in Counter(found.names.values()).items() if n > 1]:
        found.problems.append(f"{found.file}: names of categories are there twice: {some(again)}")


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
    wrong = [said for id in spread(list(found.paths)) if (said := _size_problem(found, id))]
    found.problems += wrong[:1]
    if len(wrong) > 1:
        found.problems.append(f"and the like in {len(wrong) - 1} more of a sample of its images")


def _size_problem(found: Annotations, id: int | str) -> str | None:
    path = found.paths[id]
    try:
        size = upright_size(path)
    except BadLabels as error:
        return str(error)
    if size == found.sizes[id]:
        return None
    told, real = ("×".join(map(str, each)) for each in (found.sizes[id], size))
    turned = "" if size == label_images.picture_size(path) else ", turned as its EXIF data say"
    return f"{found.file}: image {id} is {told} pixels, but {path} is {real}{turned}"


def upright_size(path: Path) -> Size:
    """Width and height of a picture as Detectron2 reads it: turned as its EXIF data say."""
    width, height = label_images.picture_size(path)
    with Image.open(path) as picture:
        turned = picture.getexif().get(ORIENTATION) in TURNED
    return (height, width) if turned else (width, height)


# Annotations ------------------------------------------------------------------------------------


def _check_annotations(
    found: Annotations, annotations: list[dict], need_masks: bool, evaluated: bool
) -> None:
    faults, boxes = Faults(found.file, "annotation"), Boxes()
    for each in annotations:
        for kind, what in _faults_of(found, each, need_masks, evaluated):
            faults.add(kind, each["id"], what)
        if each["image_id"] in found.sizes:
            boxes.count(each["bbox"], found.sizes[each["image_id"]])
            if not each.get("iscrowd"):
                found.trained.add(each["image_id"])
                found.rle |= isinstance(each.get("segmentation"), dict)
    if common := boxes.problem():
        found.problems.append(f"{found.file}: {common}")
    found.problems += faults.said()
    if remark := boxes.remark():
        found.remarks.append(f"{found.file}: {remark}")
    if not found.trained:
        found.problems.append(f"{found.file} has no object: all its annotations are crowds")


def _faults_of(
    found: Annotations, each: dict, need_masks: bool, evaluated: bool
) -> Iterator[tuple[str, str]]:
    """Every (kind, sentence) about one annotation."""
    if each["category_id"] not in found.names:
        yield "category", f"has category_id {each['category_id']}, which the file does not list"
    if each.get("iscrowd", 0) not in (0, 1):
        yield "crowd", f"has iscrowd {each['iscrowd']!r}; allowed: 0 or 1"
    if each.get("ignore"):
        yield "ignore", "has 'ignore', which Detectron2 refuses; COCO's way is iscrowd 1"
    for key in EVALUATED if evaluated else ():
        if not _is_number(each.get(key)):
            yield key, f"lacks '{key}' (a number), which COCO's evaluation reads"
    if evaluated and each["id"] == 0:
        yield "zero", "is never counted as found by COCO's evaluation; let ids start at 1"
    size = found.sizes.get(each["image_id"])
    if size is None:
        yield "image", f"has image_id {each['image_id']!r}, which the file does not list"
        return
    x, y, width, height = each["bbox"]
    if width <= 0 or height <= 0:
        yield "degenerate", f"has bbox {each['bbox']}, whose width or height is not positive"
    elif x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        yield "outside", f"has bbox {each['bbox']}, outside its image of {size[0]}×{size[1]}"
    yield from _mask_faults(each.get("segmentation"), size, need_masks)


def _mask_faults(mask: object, size: Size, need_masks: bool) -> Iterator[tuple[str, str]]:
    if not mask:
        if need_masks:
            yield "no mask", "has no segmentation, which custom_mask needs"
    elif isinstance(mask, dict):
        if mask.get("size") != [size[1], size[0]]:
            image = [size[1], size[0]]
            yield "rle", f"has an RLE of size {mask.get('size')}, but its image is {image} (h, w)"
        elif not isinstance(mask.get("counts"), str | list):
            yield "rle", "has an RLE without 'counts'"
    elif not isinstance(mask, list) or not any(map(_is_polygon, mask)):
        yield "polygon", "has a segmentation without any polygon: x, y of three or more points"


def _is_polygon(points: object) -> bool:
    """What Detectron2 keeps of a segmentation; an annotation with none of it is left out."""
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and _all_finite(points)
    )
