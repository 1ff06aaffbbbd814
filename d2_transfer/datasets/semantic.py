"""Semantic segmentation's layouts: images with label images of class numbers and 255."""

import os
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densessl.core.files import read_text
from densessl.probes import label_images
from densessl.probes.label_images import VOID, BadLabels

from . import voc_masks
from .inspection import DatasetLayout, Inspection, prepare_command, some, stems

VOC_FOLDER = "voc_aug"
ADE_FOLDER = "ADEChallengeData2016"
ADE_CLASSES = 150


@dataclass(frozen=True)
class MaskPair:
    """An image and its label image."""

    image_id: str
    image: Path
    labels: Path

    def record(self) -> dict:
        """As Detectron2 wants it: file names, and the size, from the image's header."""
        width, height = label_images.picture_size(self.image)
        return {
            "file_name": str(self.image),
            "sem_seg_file_name": str(self.labels),
            "image_id": self.image_id,
            "height": height,
            "width": width,
        }


@dataclass(frozen=True)
class SemanticLayout(DatasetLayout):
    """A split whose labels are PNGs of the numbers 0 to ``classes`` - 1, and ``void`` for none.

    ``names``: of the classes, where Detectron2 has none. ``table``: where the pixels hold other
    numbers, the class of each from 0 on, 255 for none.
    """

    split: str
    classes: int
    official: int = 0
    void: int = VOID
    names: tuple[str, ...] = ()
    table: tuple[int, ...] = ()

    @abstractmethod
    def pairs(self, root: Path) -> list[MaskPair]:
        """Every image with its labels, in an order that any machine gives."""

    def look_at_labels(self, found: Inspection, root: Path, remedy: str) -> None:
        """Add what is wrong in a sample of the label images; ``remedy`` says what fixes it."""

        def problem(pair: MaskPair) -> str | None:
            try:
                # Detectron2's reader takes palettes for colours; with a table ours alone reads.
                values = label_images.read(pair.labels, palette=bool(self.table))
                values = np.where(values == self.void, VOID, values)
                numbers = len(self.table) or self.classes
                label_images.check(pair.labels, values, numbers, pair.image)
                return self.other_problem(root, pair, values)
            except BadLabels as error:
                return str(error)

        before = len(found.problems)
        found.look(self.pairs(root), problem)
        if len(found.problems) > before:
            found.problems.append(remedy)

    def other_problem(self, root: Path, pair: MaskPair, values: np.ndarray) -> str | None:
        """What else may be wrong with labels that are in range."""
        return None


@dataclass(frozen=True)
class VocSemantic(SemanticLayout):
    """VOC2012's images with the masks that ``densessl prepare voc_aug`` writes."""

    @property
    def expected(self) -> str:
        return (
            f"VOC2012/JPEGImages and {VOC_FOLDER}/{{labels,{self.split}.txt}} "
            "(densessl prepare voc_aug)"
        )

    def pairs(self, root: Path) -> list[MaskPair]:
        base = root / VOC_FOLDER
        names = read_text(base / f"{self.split}.txt").split()
        images, labels = root / "VOC2012" / "JPEGImages", base / "labels"
        return [MaskPair(name, images / f"{name}.jpg", labels / f"{name}.png") for name in names]

    def inspect(self, root: Path) -> Inspection:
        found = Inspection()
        base = root / VOC_FOLDER
        remedy = f"fix it with: {prepare_command('voc_aug', root)}"
        listed, labels = base / f"{self.split}.txt", base / "labels"
        if not listed.is_file():  # it is written last
            found.problems.append(f"{listed} is not there; {remedy}")
            found.problems += voc_masks.inspect(root).problems
            if voc_masks.find_sbd(root) is None:
                found.problems.append(voc_masks.no_sbd(root))
            return found
        names = found.names(listed)
        found.images = len(names)
        for folder, ending in ((root / "VOC2012" / "JPEGImages", ".jpg"), (labels, ".png")):
            if (there := found.folder(folder)) is not None:
                found.need(listed, names, there, folder, ending)
        held_out = base / "val.txt"
        if self.split != "val" and held_out.is_file():
            unseen = set(read_text(held_out).split())
            if both := sorted(unseen & set(names)):
                found.problems.append(f"{listed} and {held_out} share {some(both)}")
        if not found.problems:
            self.look_at_labels(found, root, f"remove {base}, and {remedy}")
        elif found.images:
            found.problems.append(remedy)
        return found


@dataclass(frozen=True)
class AdeSemantic(SemanticLayout):
    """ADE20K's 150 classes (the challenge of 2016), with labels that start at 0."""

    classes: int = ADE_CLASSES

    def folders(self, root: Path) -> tuple[Path, Path, Path]:
        """Of the images, the labels as they come, and the labels as Detectron2 reads them."""
        base = root / ADE_FOLDER
        names = ("images", "annotations", "annotations_detectron2")
        images, original, labels = (base / name / self.split for name in names)
        return images, original, labels

    @property
    def expected(self) -> str:
        return (
            f"{ADE_FOLDER}/{{images,annotations_detectron2}}/{self.split} (densessl prepare ade20k)"
        )

    def pairs(self, root: Path) -> list[MaskPair]:
        images, _, labels = self.folders(root)
        names = stems(os.listdir(labels), ".png")
        return [MaskPair(name, images / f"{name}.jpg", labels / f"{name}.png") for name in names]

    def inspect(self, root: Path) -> Inspection:
        found = Inspection()
        images, original, labels = self.folders(root)
        remedy = f"fix it with: {prepare_command('ade20k', root)}"
        pictures = found.folder(images)
        if not labels.is_dir():
            found.problems.append(f"{labels} is not there; {remedy}")
            found.folder(original)
            return found
        names = stems(found.folder(labels) or (), ".png")
        found.images = len(names)
        if not names:
            found.problems.append(f"{labels} holds no label images; {remedy}")
        elif pictures is not None:
            if unlabelled := sorted(set(stems(pictures, ".jpg")) - set(names)):
                what = f"{images} has {some(unlabelled)} without labels in {labels}"
                found.problems.append(f"{what}; {remedy}")
            found.need(labels, names, pictures, images, ".jpg")
            if not found.problems:
                self.look_at_labels(found, root, f"remove {labels.parent}, and {remedy}")
        return found

    def other_problem(self, root: Path, pair: MaskPair, values: np.ndarray) -> str | None:
        original = self.folders(root)[1] / pair.labels.name
        if not original.is_file():
            return None
        numbers = label_images.read(original)
        if np.array_equal(values, reduce_zero(numbers)):
            return None
        copied = np.array_equal(values, numbers)
        what = "are those of" if copied else "are not those of"
        return f"{pair.labels}: its labels {what} {original}; each should be one less, 0 be {VOID}"


def reduce_zero(labels: np.ndarray) -> np.ndarray:
    """ADE's numbers 1 to 150 as 0 to 149, and its 0 (other) as 255."""
    return np.where(labels == 0, VOID, labels - 1).astype(np.uint8)
