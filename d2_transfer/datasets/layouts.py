"""Where each data set lies below DETECTRON2_DATASETS: Detectron2's own names and folders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VocLayout:
    """A PASCAL VOC split: ``<folder>/{Annotations,ImageSets/Main/<split>.txt,JPEGImages}``."""

    folder: str
    split: str
    year: int

    @property
    def expected(self) -> str:
        return f"{self.folder}/{{Annotations,ImageSets/Main/{self.split}.txt,JPEGImages}}"

    def problems(self, root: Path) -> Iterator[str]:
        """What is wrong with this split below ``root``, a sentence each; nothing when all is well.

        Looks at the folders, the list and the list's first image, not at every file.
        """
        base = root / self.folder
        folders = ("Annotations", "JPEGImages")
        missing = [name for name in folders if not (base / name).is_dir()]
        for name in missing:
            yield f"{base / name} is not there"
        listed = base / "ImageSets" / "Main" / f"{self.split}.txt"
        if not listed.is_file():
            yield f"{listed} is not there"
            return
        names = listed.read_text().split()
        if not names:
            yield f"{listed} lists no image"
        elif not missing:
            for file in (f"Annotations/{names[0]}.xml", f"JPEGImages/{names[0]}.jpg"):
                if not (base / file).is_file():
                    yield f"{listed} lists {names[0]}, but {base / file} is not there"


@dataclass(frozen=True)
class CocoLayout:
    """A data set in COCO's format: a JSON of annotations and a folder of images."""

    annotations: str
    images: str

    @property
    def expected(self) -> str:
        return f"{self.annotations} and {self.images}/*.jpg"

    def problems(self, root: Path) -> Iterator[str]:
        """As :meth:`VocLayout.problems`; the JSON is not parsed (COCO's takes a minute)."""
        annotations, images = root / self.annotations, root / self.images
        if not annotations.is_file():
            yield f"{annotations} is not there"
        else:
            with open(annotations, "rb") as stream:
                if not stream.read(64).lstrip().startswith(b"{"):
                    yield f"{annotations} is not a JSON object of annotations"
        if not images.is_dir():
            yield f"{images} is not there"
        elif next(images.iterdir(), None) is None:
            yield f"{images} is empty"


LAYOUTS: dict[str, VocLayout | CocoLayout] = {
    "voc_2007_trainval": VocLayout("VOC2007", "trainval", 2007),
    "voc_2007_test": VocLayout("VOC2007", "test", 2007),
    "voc_2012_trainval": VocLayout("VOC2012", "trainval", 2012),
    "coco_2017_train": CocoLayout("coco/annotations/instances_train2017.json", "coco/train2017"),
    "coco_2017_val": CocoLayout("coco/annotations/instances_val2017.json", "coco/val2017"),
}
