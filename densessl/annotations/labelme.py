"""LabelMe: a JSON file an image, with ``shapes`` of ``points``."""

import base64
import binascii
import io
import math
from pathlib import Path

import numpy as np

from densessl.decoding import UnreadableImage, opened, require_decodable

from .model import LEAST_NUMBERS, AnnotatedImage, Dataset, Object
from .reading import (
    BadFile,
    GroupedPoints,
    Pictures,
    box_fault,
    class_number,
    json_of,
    number,
    picture,
)
from .shapes import box_of, hull, runs

CIRCLE = 36  # points of a circle's polygon
POINT = "point"
UNUSED = ("points", "line", "linestrip")


def read(data: Dataset, json_files: list[Path], pictures: Pictures) -> None:
    """Every JSON file of ``json_files`` into ``data``.

    Shapes of one label with the same ``group_id`` are one object, and points of it its keypoints.
    Other points, and lines, have no area, and are left out with a remark.
    """
    known: dict[str, int] = {}
    points = GroupedPoints()
    unused = 0
    for file in json_files:
        try:
            content = json_of(file)
            if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
                raise BadFile("it has no list 'shapes', as LabelMe's files have")
            path = _picture_of(file, content, pictures)
        except BadFile as error:
            data.fault(file, "", str(error))
            continue
        found = picture(data, path, file, "imageWidth, imageHeight", _stated_size(content))
        if found is None:
            continue
        data.pictures.append(found)
        unused += _shapes(data, file, content["shapes"], found, known, points)
    unused += points.end(data)
    if unused:
        data.remarks.append(f"{data.path}: {unused} points and lines are of no object: left out")


def _stated_size(content: dict) -> tuple[int, int] | None:
    width, height = content.get("imageWidth"), content.get("imageHeight")
    return (width, height) if type(width) is int and type(height) is int else None


def _picture_of(file: Path, content: dict, pictures: Pictures) -> Path:
    named = content.get("imagePath")
    if isinstance(named, str) and named:
        try:
            return pictures.find(named, file.parent)
        except BadFile:
            if (found := pictures.by_stem(file.stem)) is None:
                raise
            return found
    raise BadFile(f"imagePath is {named!r}; allowed: the name of its image")


def _shapes(
    data: Dataset,
    file: Path,
    shapes: list,
    found: AnnotatedImage,
    known: dict,
    points: GroupedPoints,
) -> int:
    """The objects of an image into ``found``; how many shapes are neither objects nor points."""
    groups: dict[tuple, Object] = {}
    unused = 0
    for place, shape in enumerate(shapes):
        at = f"shape {place}"
        try:
            if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
                raise BadFile("it has no label")
            if shape.get("shape_type", "polygon") in UNUSED:
                unused += 1
                continue
            group = shape.get("group_id")
            if shape.get("shape_type") == POINT:
                if group is None:
                    unused += 1
                else:
                    points.add_point(found.path, group, shape["label"], *_flat(shape)[:2])
                continue
            made = _object(shape, found.size, at)
            if fault := box_fault(made.box, found.size):
                raise BadFile(fault)
        except BadFile as error:
            data.fault(file, at, str(error))
            continue
        made.category = class_number(data, known, shape["label"])
        first = groups.get((group, made.category)) if group is not None else None
        if first is not None and first.polygons and made.polygons:
            first.polygons += made.polygons
            first.box = hull(first.polygons)
            continue
        groups[group, made.category] = made
        found.objects.append(made)
        points.add_object(found.path, group, made)
    return unused


def _object(shape: dict, size: tuple[int, int], at: str) -> Object:
    """An object of class 0; BadFile."""
    kind, flat = shape.get("shape_type", "polygon"), _flat(shape)
    if kind == "rectangle" and len(flat) in (4, 8):  # two corners, or all four
        return Object(0, hull([flat]), at=at)
    if kind == "circle" and len(flat) == 4:
        x, y, radius = flat[0], flat[1], math.dist(flat[:2], flat[2:])
        turns = [2 * math.pi * n / CIRCLE for n in range(CIRCLE)]
        flat = [
            value
            for turn in turns
            for value in (x + radius * math.cos(turn), y + radius * math.sin(turn))
        ]
        kind = "polygon"
    if kind == "polygon" and len(flat) >= LEAST_NUMBERS:
        return Object(0, hull([flat]), [flat], at=at)
    if kind == "mask" and len(flat) == 4:
        mask = _mask(shape.get("mask"), flat, size)
        return Object(0, box_of(mask), mask=runs(mask), at=at)
    if kind in ("rectangle", "circle", "polygon", "mask"):
        raise BadFile(f"a {kind} has {len(flat) // 2} points")
    raise BadFile(
        f"its shape_type is '{kind}'; allowed: polygon, rectangle, circle, mask, "
        f"{', '.join((POINT, *UNUSED))}"
    )


def _flat(shape: dict) -> list[float]:
    """x, y, x, y …; BadFile."""
    points = shape.get("points")
    if (
        not isinstance(points, list)
        or not points
        or not all(isinstance(point, list) and len(point) == 2 for point in points)
    ):
        raise BadFile("its points are no list of x, y")
    return [number(value, "a coordinate") for point in points for value in point]


def _mask(text: object, corners: list[float], size: tuple[int, int]) -> np.ndarray:
    """The mask of the whole image; the file has it within its box, as a PNG in base64."""
    try:
        with opened(io.BytesIO(base64.b64decode(str(text), validate=True))) as image:
            require_decodable(image)
            part = np.asarray(image.convert("L")) > 0
    except (UnreadableImage, binascii.Error) as error:
        raise BadFile(f"its mask is no PNG in base64: {error}") from None
    left, top = round(corners[0]), round(corners[1])
    whole = np.zeros(size[::-1], bool)
    height, width = part.shape
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise BadFile(f"its mask of {width}×{height} pixels at {left}, {top} reaches beyond")
    whole[top : top + height, left : left + width] = part
    if not part.any():
        raise BadFile("its mask is empty")
    return whole
