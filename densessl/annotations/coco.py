"""COCO's JSON, in and out: also as CVAT, Label Studio, Roboflow and FiftyOne write it."""

import json
import math
import re
from pathlib import Path
from typing import Any

from densessl.core.form import fault
from densessl.core.names import brief

from .coco_masks import CompressedRuns, polygons_fault, runs_fault
from .model import LEAST_NUMBERS, AnnotatedImage, Box, Category, Dataset, Id, Object
from .reading import BadFile, Pictures, box_fault, json_of, number, picture
from .shapes import enclosed, hull

MIRRORED = "flip_idx"  # Ultralytics' word: of each keypoint which one it is in the mirror
SKELETON = {"keypoints": [str], "skeleton": [[int]], MIRRORED: [int]}
LISTS = ("images", "annotations", "categories")
# fmt: off
PANOPTIC_STUFF = (  # category ids of stuff in panoptic images, in Detectron2's order of 1 to 53
    92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147,
    148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, 184, 185,
    186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199, 200,
)
# fmt: on
NO_WORD = re.compile(r"[^a-z]+")
ROOT = "image_root"  # in "info": where the images lie, seen from the file; written by convert


def is_coco(content: object) -> bool:
    """Whether a JSON value is COCO's by its lists."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read(data: Dataset, file: Path, pictures: Pictures) -> None:
    """The images of ``file`` into ``data``, with the ids that they have there."""
    try:
        content = json_of(file)
        for name in LISTS:
            if not isinstance(content, dict) or not isinstance(content.get(name), list):
                raise BadFile(f"it has no list '{name}', as COCO's format has")
    except BadFile as error:
        data.fault(file, "", str(error))
        return
    reader = _Reader(data, file)
    reader.categories(content)
    reader.images(content, pictures)
    reader.annotations(content["annotations"])
    reader.end(content)


class _Reader:
    def __init__(self, data: Dataset, file: Path):
        self.data, self.file = data, file
        self.classes: dict[Id, int] = {}
        self.pictures: dict[Id, AnnotatedImage | None] = {}  # None of one with a fault
        self.runs = CompressedRuns()
        self.crowds = self.brushed = 0

    def entries(self, content: dict, name: str):
        """Each entry of a list that is an object with an id of its own, and its place."""
        seen: set[Id] = set()
        for place, entry in enumerate(content[name], 1):
            if not isinstance(entry, dict) or not _is_id(entry.get("id")):
                self.data.fault(self.file, f"{name} {place}", "it is no object with an id")
            elif entry["id"] in seen:
                self.data.fault(self.file, f"{name} {place}", f"id {entry['id']!r} is there twice")
            else:
                seen.add(entry["id"])
                yield entry, f"{name} {place}, id {entry['id']!r}"

    def categories(self, content: dict) -> None:
        used = [each.get("category_id") for each in content["annotations"] if _is_dict(each)]
        entries = [*self.entries(content, "categories")]
        above = [entry.get("supercategory") for entry, _ in entries]
        for entry, place in entries:
            name = entry.get("name")
            if not isinstance(name, str) or not name:
                self.data.fault(self.file, place, f"name is {name!r}; allowed: a text")
            elif name in above and entry["id"] not in used and entry.get("supercategory") != name:
                self.data.remarks.append(f"{self.file}: category '{name}' is a group, and no class")
            else:
                self.classes[entry["id"]] = len(self.data.categories)
                points, bones = entry.get("keypoints") or [], entry.get("skeleton") or []
                mirrored = entry.get(MIRRORED) or []
                skeleton = {"keypoints": points, "skeleton": bones, MIRRORED: mirrored}
                if wrong := fault(skeleton, SKELETON):
                    self.data.fault(self.file, place, wrong)
                    points = bones = mirrored = []
                self.data.categories.append(
                    Category(
                        name,
                        tuple(map(str, points)),
                        tuple((bone[0], bone[-1]) for bone in bones if bone),
                        entry["id"],
                        tuple(mirrored) if sorted(mirrored) == [*range(len(points))] else (),
                        str(entry.get("supercategory") or ""),
                    )
                )

    def images(self, content: dict, pictures: Pictures) -> None:
        info = content.get("info")
        root = info.get(ROOT) if isinstance(info, dict) else None
        near = [self.file.parent / root] if isinstance(root, str) else _of_its_split(self.file)
        for entry, place in self.entries(content, "images"):
            self.pictures[entry["id"]] = None
            name, stated = entry.get("file_name"), (entry.get("width"), entry.get("height"))
            try:
                if not isinstance(name, str) or not name:
                    raise BadFile(f"file_name is {name!r}; allowed: a text")
                if not all(type(each) is int and each > 0 for each in stated if each is not None):
                    raise BadFile(f"width, height are {stated}; allowed: whole numbers from 1")
                path = pictures.find(name, *near, self.file.parent)
            except BadFile as error:
                self.data.fault(self.file, place, str(error))
                continue
            whole = None if None in stated else stated
            found = picture(self.data, path, self.file, place, whole)  # type: ignore[arg-type]
            if found is not None:
                found.id = entry["id"]
                self.pictures[entry["id"]] = found
                self.data.pictures.append(found)

    def annotations(self, entries: list) -> None:
        brushes = _brushes_are_crowds(entries)
        for place, entry in enumerate(entries, 1):
            at = f"annotations {place}"
            if _is_dict(entry) and "id" in entry:
                at += f", id {entry['id']!r}"
            try:
                if not _is_dict(entry):
                    raise BadFile("it is no object")
                for key, known in (("image_id", self.pictures), ("category_id", self.classes)):
                    if not _is_id(entry.get(key)) or entry[key] not in known:
                        raise BadFile(f"{key} is {entry.get(key)!r}, which the file does not list")
                found = self.pictures[entry["image_id"]]
                if found is None:
                    continue
                made = self.object(entry, found.size, at)
                if made.crowd and brushes:
                    made.crowd = False
                    self.brushed += 1
            except BadFile as error:
                self.data.fault(self.file, at, str(error))
                continue
            if made.mask is not None and isinstance(made.mask["counts"], str):
                self.runs.add(at, made.mask["counts"], found.size[0] * found.size[1])
            self.crowds += made.crowd
            found.objects.append(made)
        self.judge()

    def judge(self) -> None:
        """Take out the objects whose run lengths, given as text, are wrong."""
        wrong = dict(self.runs.faults())
        for at, (_, what) in wrong.items():
            self.data.fault(self.file, str(at), f"it {what}")
        for each in self.data.pictures if wrong else ():
            each.objects = [made for made in each.objects if made.at not in wrong]

    def object(self, entry: dict, size: tuple[int, int], at: str) -> Object:
        """BadFile with what is wrong."""
        polygons, mask = _segmentation(entry.get("segmentation"), size)
        box = _box(entry.get("bbox"), polygons)
        if wrong := box_fault(box, size):
            raise BadFile(wrong)
        flat = entry.get("keypoints") or []
        if not isinstance(flat, list) or len(flat) % 3:
            raise BadFile("keypoints are no list of x, y, v")
        values = [number(each, "a keypoint's number") for each in flat]
        points = self.data.categories[self.classes[entry["category_id"]]].keypoints
        if points and values and len(values) != 3 * len(points):
            raise BadFile(f"it has {len(values) // 3} keypoints; its category has {len(points)}")
        area = entry.get("area")
        kept = type(area) in (int, float) and 0 <= area < math.inf  # type: ignore[operator]
        return Object(
            category=self.classes[entry["category_id"]],
            box=box,
            polygons=polygons,
            mask=mask,
            keypoints=[
                (values[n], values[n + 1], int(values[n + 2])) for n in range(0, len(values), 3)
            ],
            crowd=bool(entry.get("iscrowd")),
            at=at,
            id=entry.get("id") if _is_id(entry.get("id")) else None,
            area=area if kept else None,
        )

    def end(self, content: dict) -> None:
        if self.crowds:
            self.data.remarks.append(f"{self.file}: {self.crowds} crowds: not trained on")
        if self.brushed:
            self.data.remarks.append(
                f"{self.file}: {self.brushed} masks that CVAT writes as crowds are taken as objects"
            )


def _of_its_split(file: Path) -> list[Path]:
    """Folders around a file that are of the split in its name: ``train2017``, ``images/train`` or
    ``images_train`` of ``instances_train2017.json``."""
    splits = {*NO_WORD.split(file.stem.lower())} & {"train", "val", "valid", "test"}
    around = (
        [file.parent, file.parent.parent] if file.parent.name == "annotations" else [file.parent]
    )
    return [
        folder
        for above in around
        for pattern in ("*", "images/*")
        for folder in sorted(above.glob(pattern))
        if splits & {*NO_WORD.split(folder.name.lower())} and folder.is_dir()
    ]


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _is_id(value: object) -> bool:
    return type(value) in (int, str) or (isinstance(value, float) and math.isfinite(value))


def _brushes_are_crowds(entries: list) -> bool:
    """Whether the file is CVAT's, which writes every mask of its brush, and no polygon, as a crowd:
    its annotations have the attribute 'occluded'."""
    objects = [each for each in entries if _is_dict(each)]
    return any(
        _is_dict(each.get("attributes")) and "occluded" in each["attributes"] for each in objects
    ) and all(bool(each.get("iscrowd")) == _is_dict(each.get("segmentation")) for each in objects)


def _segmentation(value: object, size: tuple[int, int]) -> tuple[list[list[float]], dict | None]:
    """Polygons of three points or more, or an RLE; neither where there is none.

    BadFile; run lengths that are a text are judged later, many at a time.
    """
    if not value:
        return [], None
    if isinstance(value, dict):
        if value.get("size") != [size[1], size[0]]:
            raise BadFile(
                f"its RLE has size {value.get('size')}; its image is {[size[1], size[0]]} (h, w)"
            )
        counts = value.get("counts")
        if isinstance(counts, list) and (wrong := runs_fault(counts, size[0] * size[1])):
            raise BadFile(f"it {wrong[1]}")
        if not isinstance(counts, list | str):
            raise BadFile(f"its RLE has the counts {brief(repr(counts))}; allowed: text or numbers")
        return [], value
    if not isinstance(value, list):
        raise BadFile(f"its segmentation is {brief(repr(value))}; allowed: polygons or an RLE")
    if not any(isinstance(each, list) for each in value):
        value = [value]  # one polygon, without the list around it
    if wrong := polygons_fault(value):
        raise BadFile(f"it {wrong[1]}")
    return [[*map(float, each)] for each in value if len(each) >= LEAST_NUMBERS], None


def _box(value: object, polygons: list[list[float]]) -> Box:
    """x1, y1, x2, y2; where there is none, that of the polygons."""
    if value is None and polygons:
        return hull(polygons)
    if not isinstance(value, list) or len(value) != 4:
        raise BadFile(f"bbox is {brief(repr(value))}; allowed: x, y, width, height")
    x, y, width, height = (number(each, "a number of bbox") for each in value)
    return x, y, x + width, y + height


def content(data: Dataset, image_root: str | None = None) -> dict[str, Any]:
    """The data set as COCO's JSON: ids as they were read, else counted from 1.

    Images are named as seen from :attr:`Dataset.root`; ``image_root`` says where that lies.
    """
    root = data.root
    categories = _ids([each.id for each in data.categories])
    pictures = _ids([each.id for each in data.pictures])
    numbers = iter(_ids([each.id for each in data.objects()]))
    info = {"description": f"from {data.form}, by densessl data"}
    return {
        "info": info if image_root is None else info | {ROOT: image_root},
        "images": [
            {
                "id": id,
                "file_name": each.path.relative_to(root).as_posix(),
                "width": each.size[0],
                "height": each.size[1],
            }
            for id, each in zip(pictures, data.pictures, strict=True)
        ],
        "annotations": [
            _annotation(each, next(numbers), id, categories[each.category])
            for id, picture_ in zip(pictures, data.pictures, strict=True)
            for each in picture_.objects
        ],
        "categories": [
            _category(each, id) for id, each in zip(categories, data.categories, strict=True)
        ],
    }


def _ids(given: list[Id | None]) -> list[Id]:
    """Those that were read, where every one has its own; else 1, 2, 3, …"""
    known = [each for each in given if each is not None]
    if len(set(known)) == len(given):
        return known
    return list(range(1, len(given) + 1))


def _annotation(each: Object, id: Id, image: Id, category: Id) -> dict[str, Any]:
    x1, y1, x2, y2 = each.box
    found: dict[str, Any] = {
        "id": id,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": _area(each),
        "iscrowd": int(each.crowd),
    }
    if each.polygons or each.mask:
        found["segmentation"] = each.polygons or each.mask
    if each.keypoints:
        found["keypoints"] = [value for point in each.keypoints for value in point]
        found["num_keypoints"] = sum(v > 0 for _, _, v in each.keypoints)
    return found


def _area(each: Object) -> float:
    """As it was read; else of the mask or the polygons in pixels; else of the box."""
    if each.area is not None:
        return each.area
    if each.polygons:
        return sum(map(enclosed, each.polygons))
    if each.mask and isinstance(each.mask["counts"], list):
        return float(sum(each.mask["counts"][1::2]))
    x1, y1, x2, y2 = each.box
    return (x2 - x1) * (y2 - y1)


def _category(each: Category, id: Id) -> dict[str, Any]:
    found: dict[str, Any] = {"id": id, "name": each.name}
    if each.group:
        found["supercategory"] = each.group
    if each.keypoints:
        found["keypoints"] = list(each.keypoints)
        found["skeleton"] = [list(bone) for bone in each.skeleton]
    if each.mirrored:
        found[MIRRORED] = list(each.mirrored)
    return found


def text(content: dict[str, Any]) -> str:
    """As a file has it; the same data set gives the same text."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n"
