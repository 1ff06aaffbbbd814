"""The annotations of the user's own files: what is wrong with one, and what is taken as it is."""

from collections import Counter
from collections.abc import Iterator

from densessl.annotations.coco_masks import CompressedRuns, finite, polygons_fault, runs_fault

from .coco_content import LEAST_NUMBERS, Id, is_area, is_crowd
from .custom_found import Annotations, Boxes, Faults, Size, shown
from .inspection import some

NOTICES = {  # what is taken although the format has it otherwise, by the reason
    "no iscrowd": "without iscrowd: taken as 0, no crowd",
    "iscrowd": "with iscrowd as true or false: taken as 1 and 0",
    "area": "without a number as area: computed from the mask or the box",
    "zero": "with id 0: taken, as the evaluation numbers annotations anew",
    "points": "with polygons of fewer than three points: these are left out",
}


class Objects:
    """Checks annotations one by one, and says what it found of all."""

    def __init__(self, found: Annotations, need_masks: bool, evaluated: bool):
        self.found, self.need_masks, self.evaluated = found, need_masks, evaluated
        self.faults = Faults(found.file, "annotation")
        self.boxes, self.runs = Boxes(), CompressedRuns()
        self.points = len(found.keypoints.names)  # 0: not needed
        self.taken: Counter[str] = Counter()  # annotations, by the key of NOTICES

    def check(self, annotations: list[dict]) -> None:
        """Put what is wrong into ``problems`` of the file, and what is odd into ``remarks``."""
        found = self.found
        for each in annotations:
            for kind, what in self._faults_of(each):
                self.faults.add(kind, shown(each["id"]), what)
            if each["image_id"] in found.sizes:
                self.boxes.count(each["bbox"], found.sizes[each["image_id"]])
                self._take(each)
        for id, fault in self.runs.faults():
            self.faults.add(fault[0], shown(id), fault[1])
        if common := self.boxes.problem():
            found.problems.append(f"{found.file}: {common}")
        found.problems += self.faults.messages()
        if remark := self.boxes.remark():
            found.remarks.append(f"{found.file}: {remark}")
        for kind, what in NOTICES.items():
            if many := self.taken[kind]:
                found.remarks.append(
                    f"{found.file}: {many} of {len(annotations)} annotations {what}"
                )
        if not found.trained:
            found.problems.append(f"{found.file} has no object: all its annotations are crowds")

    def _take(self, each: dict) -> None:
        found, crowd = self.found, is_crowd(each)
        found.used[each["category_id"]] += not crowd
        if not crowd:
            if not self.points or any((each.get("keypoints") or [])[2::3]):
                found.trained.add(each["image_id"])
            found.rle |= isinstance(each.get("segmentation"), dict)
        iscrowd = each.get("iscrowd")
        if iscrowd is None:
            self.taken["no iscrowd"] += 1
        elif isinstance(iscrowd, bool):
            self.taken["iscrowd"] += 1
        if self.evaluated:
            self.taken["area"] += not is_area(each.get("area"))
            self.taken["zero"] += each["id"] == 0

    def _faults_of(self, each: dict) -> Iterator[tuple[str, str]]:
        """Every (kind, sentence) about one annotation."""
        found = self.found
        if each["category_id"] not in found.names:
            yield "category", f"has category_id {_unlisted(each['category_id'], found.names)}"
        if each.get("iscrowd") not in (None, 0, 1):
            yield "crowd", f"has iscrowd {each['iscrowd']!r}; allowed: 0 or 1"
        if each.get("ignore"):
            yield "ignore", "has 'ignore', which Detectron2 refuses; COCO's way is iscrowd 1"
        size = found.sizes.get(each["image_id"])
        if size is None:
            yield "image", f"has image_id {_unlisted(each['image_id'], found.sizes)}"
            return
        x, y, width, height = each["bbox"]
        if width <= 0 or height <= 0:
            yield "degenerate", f"has bbox {each['bbox']}, whose width or height is not positive"
        elif x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
            yield "outside", f"has bbox {each['bbox']}, outside its image of {size[0]}×{size[1]}"
        yield from self._mask_faults(each, size)
        if self.points:
            yield from self._keypoint_faults(each)

    def _keypoint_faults(self, each: dict) -> Iterator[tuple[str, str]]:
        found = each.get("keypoints")
        if not isinstance(found, list) or len(found) != 3 * self.points or not finite(found):
            count = f"{len(found)} numbers" if isinstance(found, list) else repr(found)
            yield (
                "keypoints",
                f"has {count} as keypoints; allowed: {3 * self.points} numbers, x, y, v of "
                f"{self.points} points (0, 0, 0 of one that is absent)",
            )
        elif not {*found[2::3]} <= {0, 1, 2}:
            yield "visibility", f"has keypoints of v {some(found[2::3])}; allowed: 0, 1, 2"

    def _mask_faults(self, each: dict, size: Size) -> Iterator[tuple[str, str]]:
        mask = each.get("segmentation")
        if not mask:
            if self.need_masks:
                yield "no mask", "has no segmentation, which custom_mask needs"
        elif isinstance(mask, list):
            if fault := polygons_fault(mask):
                yield fault
            elif min(map(len, mask)) < LEAST_NUMBERS:
                self.taken["points"] += 1
        elif not isinstance(mask, dict):
            yield "polygon", f"has the segmentation {mask!r}; allowed: polygons or an RLE"
        elif mask.get("size") != [size[1], size[0]]:
            image = [size[1], size[0]]
            yield "rle", f"has an RLE of size {mask.get('size')}, but its image is {image} (h, w)"
        elif isinstance(counts := mask.get("counts"), list):
            if fault := runs_fault(counts, size[0] * size[1]):
                yield fault
        elif isinstance(counts, str):
            self.runs.add(each["id"], counts, size[0] * size[1])
        else:
            yield "rle", "has an RLE without 'counts'"


def _unlisted(id: Id, listed) -> str:
    """An id that a file does not list, and what it may be meant for."""
    other = str(id) if isinstance(id, int | float) else _number(id)
    meant = f" (it lists {shown(other)})" if other is not None and other in listed else ""
    return f"{shown(id)}, which the file does not list{meant}"


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
