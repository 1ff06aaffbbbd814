"""COCO's panoptic layout, as Detectron2's ``separated`` data sets have it: the objects of the
instances' annotations, and label images of stuff made of the panoptic ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densessl.annotations.coco import PANOPTIC_STUFF
from densessl.decoding import UnreadableImage, opened, require_decodable
from densessl.probes import label_images
from densessl.probes.label_images import VOID, BadLabels

from . import coco_content
from .detection import COCO_CATEGORIES, CocoLayout, search, values
from .inspection import DatasetLayout, Inspection, prepare_command, stems

NAME = "coco_panoptic"  # for prepare
CLASSES = len(PANOPTIC_STUFF) + 1  # 0 is every thing
OF_CATEGORY = dict.fromkeys(COCO_CATEGORIES, 0) | {
    id: n for n, id in enumerate(PANOPTIC_STUFF, start=1)
}


@dataclass(frozen=True)
class PanopticLayout(DatasetLayout):
    """A split, ``train`` or ``val``, of 2017."""

    split: str
    official: int = 0

    @property
    def objects(self) -> CocoLayout:
        file = f"coco/annotations/instances_{self.split}2017.json"
        return CocoLayout(file, f"coco/{self.split}2017", self.official)

    def annotations(self, root: Path) -> Path:
        return root / "coco" / "annotations" / f"panoptic_{self.split}2017.json"

    def segments(self, root: Path) -> Path:
        """The folder of the panoptic images, whose colours are numbers of segments."""
        return root / "coco" / f"panoptic_{self.split}2017"

    def stuff(self, root: Path) -> Path:
        """The folder of label images of stuff, in Detectron2's place."""
        return root / "coco" / f"panoptic_stuff_{self.split}2017"

    @property
    def expected(self) -> str:
        split = f"{self.split}2017"
        return (
            f"coco/{{{split},panoptic_{split}}}, coco/annotations/{{instances,panoptic}}_{split}"
            f".json, and coco/panoptic_stuff_{split} (densessl prepare {NAME})"
        )

    def inspect(self, root: Path) -> Inspection:
        found = self.objects.inspect(root)
        file = self.annotations(root)
        names: list[str] = []
        search(file, found, lambda text: names.extend(values(text, "file_name")))
        there = found.folder(self.segments(root))
        if there is not None:
            pictures = [name for name in names if name.endswith(".png")]
            found.need(file, pictures, there, self.segments(root), "")
        if found.problems:
            return found
        stuff, remedy = self.stuff(root), f"fix it with: {prepare_command(NAME, root)}"
        if not stuff.is_dir():
            found.problems.append(f"{stuff} is not there; {remedy}")
            return found
        pictures = stems(found.folder(root / self.objects.images) or (), ".jpg")
        labels = found.folder(stuff) or set()
        found.need(root / self.objects.images, pictures, labels, stuff, ".png")
        if found.problems:
            found.problems.append(remedy)
            return found
        found.look([stuff / f"{name}.png" for name in pictures], _problem)
        return found

    def records(self, root: Path, classes: dict) -> list[dict]:
        """The images with their objects and label images, as Detectron2 gives them."""
        file, images = root / self.objects.annotations, root / self.objects.images
        found = coco_content.records(file, images, classes)
        for each in found:
            name = f"{Path(each['file_name']).stem}.png"
            each["sem_seg_file_name"] = str(self.stuff(root) / name)
        return found


def _problem(file: Path) -> str | None:
    try:
        label_images.check(file, label_images.read(file, palette=False), CLASSES)
    except BadLabels as error:
        return str(error)
    return None


def read_segments(file: Path) -> np.ndarray:
    """The number of the segment of each pixel, int64 [h, w], 0 for none: R + 256 G + 65536 B.

    Raises BadLabels for what is no picture in colour.
    """
    try:
        with opened(file) as picture:
            require_decodable(picture)
            mode, colours = picture.mode, np.asarray(picture.convert("RGB"), np.int64)
    except UnreadableImage as error:
        raise BadLabels(f"{file} cannot be read: {error}") from None
    if mode != "RGB":
        raise BadLabels(
            f"{file} is {mode}; a panoptic image has the numbers of its segments as RGB"
        )
    return colours @ np.array([1, 256, 65536])


def stuff_labels(file: Path, categories: dict[int, int]) -> np.ndarray:
    """The stuff of a panoptic image, uint8 [h, w]: its class, 0 for things, 255 for none.

    ``categories``: of each segment its category id. Raises BadLabels for a segment without one.
    """
    pixels = read_segments(file)
    segments, places = np.unique(pixels, return_inverse=True)
    table = []
    for segment in segments.tolist():
        if segment and segment not in categories:
            raise BadLabels(f"{file} has pixels of segment {segment}, which no annotation has")
        table.append(OF_CATEGORY[categories[segment]] if segment else VOID)
    return np.array(table, np.uint8)[places].reshape(pixels.shape)
