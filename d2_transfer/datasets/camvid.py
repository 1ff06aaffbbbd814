"""CamVid's layouts: frames of street videos in the 11 classes of SegNet's tutorial."""

import os
from dataclasses import dataclass
from pathlib import Path

from densessl.decoding import is_image

from .inspection import Inspection, some
from .semantic import MaskPair, SemanticLayout

FOLDERS = ("camvid", "CamVid")
NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
UNLABELLED = 11  # behind the classes, in the published label images


@dataclass(frozen=True)
class CamVidSemantic(SemanticLayout):
    """Below ``camvid`` or ``CamVid``: SegNet's ``train`` and ``trainannot``, or ``train/images``
    and ``train/labels``; and so for val and test."""

    drawn = False
    classes: int = len(NAMES)
    void: int = UNLABELLED
    names: tuple[str, ...] = NAMES

    @property
    def expected(self) -> str:
        return (
            f"CamVid/{self.split}/*.png and CamVid/{self.split}annot/*.png, as SegNet's tutorial "
            f"has them, or camvid/{self.split}/{{images,labels}}"
        )

    def folders(self, root: Path) -> tuple[Path, Path]:
        """Of the images and of the label images."""
        base = next((root / name for name in FOLDERS if (root / name).is_dir()), root / FOLDERS[0])
        if (base / self.split / "images").is_dir():
            return base / self.split / "images", base / self.split / "labels"
        return base / self.split, base / f"{self.split}annot"

    def pairs(self, root: Path) -> list[MaskPair]:
        images, labels = self.folders(root)
        names = sorted(name for name in os.listdir(images) if is_image(name))
        stems = [os.path.splitext(name)[0] for name in names]
        return [
            MaskPair(stem, images / name, labels / f"{stem}.png")
            for stem, name in zip(stems, names, strict=True)
        ]

    def inspect(self, root: Path) -> Inspection:
        found = Inspection()
        images, labels = self.folders(root)
        pictures, there = found.folder(images), found.folder(labels)
        if pictures is None or there is None:
            return found
        pairs = self.pairs(root)
        found.images = len(pairs)
        if not pairs:
            found.problems.append(f"{images} holds no images")
        elif absent := [pair.image_id for pair in pairs if pair.labels.name not in there]:
            found.problems.append(f"{some(absent)} have no label image in {labels}")
        else:
            self.look_at_labels(found, root, f"{UNLABELLED} is for pixels of no class")
        return found
