"""Detection's layouts: PASCAL VOC, and COCO with its boxes, masks and keypoints."""

import json
import mmap
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from densessl.annotations.coco_masks import CompressedRuns, runs_fault
from densessl.annotations.reading import require_xml, xml_of
from densessl.core.files import read_text

from .. import compat
from .inspection import DatasetLayout, Inspection, some

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # in the order of the numbers 1 to 20 of VOC's masks
# fmt: on
COCO_ABSENT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # of 1 to 90; the other 80 are its classes
COCO_CATEGORIES = frozenset(range(1, 91)) - COCO_ABSENT
PERSON = frozenset({1})
LONGEST_LIST = 1 << 20  # bytes; COCO's list of categories has 4 kB

Text = mmap.mmap | bytes


@dataclass(frozen=True)
class VocLayout(DatasetLayout):
    """A PASCAL VOC split: ``<folder>/{Annotations,ImageSets/Main/<split>.txt,JPEGImages}``."""

    folder: str
    split: str
    year: int
    official: int = 0

    @property
    def expected(self) -> str:
        return f"{self.folder}/{{Annotations,ImageSets/Main/{self.split}.txt,JPEGImages}}"

    def inspect(self, root: Path) -> Inspection:
        found = Inspection()
        base = root / self.folder
        listed = base / "ImageSets" / "Main" / f"{self.split}.txt"
        annotations, pictures = base / "Annotations", base / "JPEGImages"
        held = {folder: found.folder(folder) for folder in (annotations, pictures)}
        names = found.names(listed)
        found.images = len(names)
        for folder, ending in ((annotations, ".xml"), (pictures, ".jpg")):
            if (there := held[folder]) is not None:
                found.need(listed, names, there, folder, ending)
        xml = [annotations / f"{name}.xml" for name in names]
        found.look([file for file in xml if file.name in (held[annotations] or ())], _voc_problem)
        return found


def voc_records(folder: Path, split: str) -> list[dict]:
    """The images of a VOC split with their objects, as Detectron2's ``load_voc_instances`` gives
    them; but the list may be in any form of Unicode, and of one image."""
    compat.setup()
    from detectron2.structures import BoxMode

    records = []
    for name in read_text(folder / "ImageSets" / "Main" / f"{split}.txt").split():
        tree = require_xml(folder / "Annotations" / f"{name}.xml")
        objects = []
        for item in tree.iter("object"):
            sides = ("xmin", "ymin", "xmax", "ymax")
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{side}", "")) for side in sides)
            objects.append(
                {
                    "category_id": VOC_CLASSES.index(item.findtext("name", "")),
                    "bbox": [x1 - 1, y1 - 1, x2, y2],  # VOC counts pixels from 1, both included
                    "bbox_mode": BoxMode.XYXY_ABS,
                }
            )
        records.append(
            {
                "file_name": str(folder / "JPEGImages" / f"{name}.jpg"),
                "image_id": name,
                "height": int(tree.findtext("size/height", "")),
                "width": int(tree.findtext("size/width", "")),
                "annotations": objects,
            }
        )
    return records


def _voc_problem(path: Path) -> str | None:
    """What Detectron2's reader would stumble over in an annotation of VOC."""
    try:
        tree = xml_of(path)
        for place in ("size/width", "size/height"):
            int(tree.findtext(place, ""))
        for item in tree.iter("object"):
            if (name := item.findtext("name", "")) not in VOC_CLASSES:
                return f"{path} has an object '{name}', which is none of VOC's 20 classes"
            x1, y1, x2, y2 = (
                float(item.findtext(f"bndbox/{side}", ""))
                for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if not (x1 <= x2 and y1 <= y2):
                box = f"{x1:g}, {y1:g}, {x2:g}, {y2:g}"
                return f"{path} has the box {box}; it should be xmin, ymin, xmax, ymax"
    except (TypeError, ValueError) as error:  # BadFile's, too
        return f"{path} is no annotation of VOC: {error}"
    return None


@dataclass(frozen=True)
class CocoLayout(DatasetLayout):
    """A data set of COCO: a JSON of annotations and a folder of images."""

    annotations: str
    images: str
    official: int = 0
    keypoints: bool = False

    @property
    def expected(self) -> str:
        return f"{self.annotations} and {self.images}/*.jpg"

    def inspect(self, root: Path) -> Inspection:
        """As the base class's; the JSON is searched, not parsed (COCO's takes half a minute)."""
        found = Inspection()
        file, folder = root / self.annotations, root / self.images
        there = found.folder(folder)
        if there is not None and not there:
            found.problems.append(f"{folder} is empty")
        search(file, found, lambda text: self._inspect_json(found, file, text, folder, there))
        return found

    def _inspect_json(
        self, found: Inspection, file: Path, text: Text, folder: Path, there: set[str] | None
    ) -> None:
        names = values(text, "file_name")
        found.images = len(names)
        if not names:
            found.problems.append(f"{file} lists no image")
        elif there:
            found.need(file, names, there, folder, "")
        expected = PERSON if self.keypoints else COCO_CATEGORIES
        if (ids := category_ids(text)) != expected:
            kind = "the one of a person" if self.keypoints else "COCO's 80"
            found.problems.append(
                f"{file}: its categories ({some(sorted(ids)) or 'none'}) are not {kind}; your own "
                "data go through --protocol custom_det or custom_mask"
            )
        if faults := _run_length_faults(text):
            more = f"; and the like of {len(faults) - 1} more" if len(faults) > 1 else ""
            found.problems.append(f"{file}: {faults[0]}{more}")
        if self.keypoints and text.find(b'"num_keypoints"') < 0:
            found.problems.append(f"{file} has no annotation with 'num_keypoints'")


def search(file: Path, found: Inspection, look: Callable[[Text], None]) -> None:
    """Call ``look`` with the bytes of a JSON of annotations, or add why that cannot be."""
    try:
        with _utf8(file) as text:
            if problem := _not_whole(file, text):
                found.problems.append(problem)
            else:
                look(text)
    except FileNotFoundError:
        found.problems.append(f"{file} is not there")
    except (OSError, ValueError) as error:
        found.problems.append(f"{file} cannot be read: {error}")


@contextmanager
def _utf8(file: Path) -> Iterator[Text]:
    """The bytes of a file, mapped; those of one that is UTF-16 or UTF-32 as UTF-8."""
    with open(file, "rb") as stream:
        start = stream.read(4)
        if not start or not json.detect_encoding(start).startswith("utf-8"):
            yield read_text(file).encode()
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            yield text


def _not_whole(file: Path, text: Text) -> str | None:
    """Whether a file begins and ends as a JSON object does, looking at its ends only."""
    if not text[:64].removeprefix(BOM_UTF8).lstrip().startswith(b"{"):
        return f"{file} is not a JSON object of annotations"
    if not text[-64:].rstrip().endswith(b"}"):
        return f"{file} is cut short: it does not end as a JSON object does"
    return None


def values(text: Text, key: str) -> list[str]:
    """Every text that has this key, such as "file_name": one an image, in COCO's files."""
    raw = re.findall(rb'"%b"\s*:\s*("(?:[^"\\]|\\.)*")' % key.encode(), text)
    return [json.loads(value) for value in raw]


def _run_length_faults(text: Text) -> list[str]:
    """What is wrong with the masks that are run lengths: the crowds, in COCO's files."""
    runs = CompressedRuns()
    faults: list[tuple[float | str, tuple[str, str]]] = []
    for found in re.finditer(rb'"segmentation"\s*:\s*(\{[^{}]*\})', text):
        place = f"at byte {found.start()}"
        try:
            mask = json.loads(found[1])
            (height, width), counts = mask["size"], mask["counts"]
            if isinstance(counts, str):
                runs.add(place, counts, height * width)
            elif fault := runs_fault(counts, height * width):
                faults.append((place, fault))
        except (KeyError, TypeError, ValueError):
            faults.append((place, ("rle", "has an RLE without a size or without counts")))
    faults += runs.faults()
    return [f"an annotation {what} ({place})" for place, (_, what) in faults]


def category_ids(text: Text) -> set[int]:
    """The ids in the list of categories; empty where there is none that can be read."""
    start = text.find(b"[", text.rfind(b'"categories"'))
    if start < 0:
        return set()
    listed = text[start : start + LONGEST_LIST].decode("utf-8", "replace")
    try:
        return {category["id"] for category in json.JSONDecoder().raw_decode(listed)[0]}
    except (KeyError, TypeError, ValueError):
        return set()
