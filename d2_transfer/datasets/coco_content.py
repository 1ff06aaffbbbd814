"""COCO's annotation files as people have them: for Detectron2, and for the evaluation.

In place of Detectron2's and pycocotools' readers, which want UTF-8, ids that sort and fit a double,
and every key of the format, and which fail or give wrong numbers where a file has less.
"""

import gc
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from densessl.annotations.model import LEAST_NUMBERS, Id
from densessl.core.errors import InputError
from densessl.core.files import read_json

from .. import compat

FILE_NAME = itemgetter("file_name")  # of an image
FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")  # of LVIS's images


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """With files as large as COCO's it takes most of the time: it goes through the millions of
    objects that are there again and again, and none is garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def ordered(ids: Iterable[Id]) -> list[Id]:
    """Ids in the order that pycocotools has them in; numbers among texts, which have none, as they
    stand."""
    ids = list(ids)
    try:
        return sorted(ids)
    except TypeError:
        return ids


def is_crowd(annotation: Mapping) -> bool:
    """``iscrowd`` may be missing, null, a number or true and false."""
    return bool(annotation.get("iscrowd"))


def is_area(value: Any) -> bool:
    """Whether an ``area`` can be used as it is."""
    return type(value) in (int, float) and 0 <= value < math.inf


def polygons(segmentation: list[list[float]]) -> list[list[float]]:
    """Those of three points or more; the others have no area."""
    return [each for each in segmentation if len(each) >= LEAST_NUMBERS]


def records(
    file: str | os.PathLike,
    folder: str | os.PathLike,
    classes: Mapping[Id, int],
    image_file: Callable[[dict], str] = FILE_NAME,
) -> list[dict]:
    """The images of ``file`` with their objects, as Detectron2's ``load_coco_json`` gives them.

    ``classes``: the class number, from 0, by category id. ``image_file``: of an image its file
    below ``folder``. The images come in the order of their
    ids. Polygons of fewer than three points or of half a point are left out, as there, and with
    the last one the object. Raises InputError for a category that is not among ``classes``.
    """
    compat.setup()
    with no_garbage_collection():
        content = read_json(file)
        objects = defaultdict(list)
        for each in content["annotations"]:
            if each["category_id"] not in classes:
                raise InputError(
                    f"{file}: annotation {each.get('id')!r} has category_id "
                    f"{each['category_id']!r}, which is no category of the data set"
                )
            objects[each["image_id"]].append(each)
        images = {each["id"]: each for each in content["images"]}
        return [
            _record(images[id], os.path.join(folder, image_file(images[id])), objects[id], classes)
            for id in ordered(images)
        ]


def _record(image: dict, file: str, objects: list[dict], classes: Mapping) -> dict:
    size = image["height"], image["width"]
    found = (_object(each, size, classes[each["category_id"]]) for each in objects)
    return {
        "file_name": file,
        "height": size[0],
        "width": size[1],
        "image_id": image["id"],
        "annotations": [each for each in found if each is not None],
    }


def _object(annotation: dict, size: tuple[int, int], label: int) -> dict | None:
    from detectron2.structures import BoxMode

    found = {
        "iscrowd": int(is_crowd(annotation)),
        "bbox": annotation["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": label,
    }
    if mask := annotation.get("segmentation"):
        mask = _mask(mask, size)
        if isinstance(mask, list) and not (mask := [each for each in mask if len(each) % 2 == 0]):
            return None
        found["segmentation"] = mask
    if points := annotation.get("keypoints"):
        # pixel numbers, where boxes and masks have positions; every third is the visibility
        found["keypoints"] = [v if n % 3 == 2 else v + 0.5 for n, v in enumerate(points)]
    return found


def _mask(mask: list | dict, size: tuple[int, int]) -> list | dict:
    """Polygons that have an area, or run lengths as pycocotools' compressed text."""
    if isinstance(mask, list):
        return polygons(mask)
    if isinstance(mask["counts"], list):
        from pycocotools import mask as coco_mask  # only here: a config is made without it

        return coco_mask.frPyObjects({"size": list(size), "counts": mask["counts"]}, *size)
    return {"size": list(size), "counts": mask["counts"]}


def numbered(content: dict, categories: Sequence[Id]) -> tuple[dict, dict[Id, int], dict[Id, int]]:
    """The ground truth as COCOeval can take it, and the number of each image and category by id.

    Images, ``categories`` and annotations are numbered from 1 in the order of pycocotools: it takes
    a match with annotation 0 for none, and faster-coco-eval holds ids as doubles, where numbers
    from 2^53 on are no longer apart, and takes no texts. ``iscrowd`` is 0 or 1, ``area`` a number.
    """
    held = {each["id"]: each for each in content["images"]}
    images = {id: number for number, id in enumerate(ordered(held), 1)}
    kinds = {id: number for number, id in enumerate(categories, 1)}
    counted = [
        each
        for each in content["annotations"]
        if each["image_id"] in images and each["category_id"] in kinds
    ]
    truth = {
        "images": [_image(held[id], number, kinds) for id, number in images.items()],
        "categories": [
            {**each, "id": kinds[each["id"]]}
            for each in content["categories"]
            if each["id"] in kinds
        ],
        "annotations": [
            _evaluated(each, held[each["image_id"]])
            | {
                "id": number,
                "image_id": images[each["image_id"]],
                "category_id": kinds[each["category_id"]],
            }
            for number, each in enumerate(counted, 1)
        ],
    }
    return truth, images, kinds


def _image(image: dict, number: int, kinds: Mapping[Id, int]) -> dict:
    lists = {
        key: [kinds[category] for category in image[key] if category in kinds]
        for key in FEDERATED
        if key in image
    }
    return {**image, "id": number, **lists}


def _evaluated(annotation: dict, image: dict) -> dict:
    found = {**annotation, "iscrowd": int(is_crowd(annotation))}
    size = image["height"], image["width"]
    if mask := annotation.get("segmentation"):
        found["segmentation"] = _mask(mask, size) or mask
    if points := annotation.get("keypoints"):
        found.setdefault("num_keypoints", sum(v > 0 for v in points[2::3]))
    if not is_area(found.get("area")):
        found["area"] = _area(found, size)
    return found


def _area(annotation: dict, size: tuple[int, int]) -> float:
    """In pixels: of the mask where there is one, else of the box."""
    if mask := annotation.get("segmentation"):
        from pycocotools import mask as coco_mask

        if isinstance(mask, list):
            mask = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
        return float(coco_mask.area(mask))
    _, _, width, height = annotation["bbox"]
    return float(width * height)
