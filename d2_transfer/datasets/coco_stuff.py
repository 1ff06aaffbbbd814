"""COCO-Stuff: COCO's 2017 images, with label images of 182 labels merged into coarse classes.

The label images are COCO-Stuff's own, ``stuffthingmaps_trainval2017.zip`` (Caesar et al. 2018): a
pixel is the number of its label less 1, 255 where it has none. Labels 1 to 91 are COCO's things
(11 of them are never used), 92 to 182 are stuff. Each label has one of 27 supercategories, which
are the classes of IIC (Ji et al. 2019), PiCIE (Cho et al. 2021) and STEGO (Hamilton et al. 2022),
in their order.
"""

from dataclasses import dataclass
from pathlib import Path

from densessl.probes.label_images import VOID

from .inspection import Inspection, stems
from .semantic import MaskPair, SemanticLayout

FOLDER = "coco"
MAPS = "stuffthingmaps"
VALUES = 182  # of a label image, from 0; beside them 255

# The values of a label image that each class has; things come first, then stuff.
THINGS: dict[str, tuple[int, ...]] = {
    "electronic-things": tuple(range(71, 77)),  # tv … cell phone
    "appliance-things": tuple(range(77, 83)),  # microwave … blender
    "food-things": tuple(range(51, 61)),  # banana … cake
    "furniture-things": tuple(range(61, 71)),  # chair … door
    "indoor-things": tuple(range(83, 91)),  # book … hair brush
    "kitchen-things": tuple(range(43, 51)),  # bottle … bowl
    "accessory-things": tuple(range(25, 33)),  # hat … suitcase
    "animal-things": tuple(range(15, 25)),  # bird … giraffe
    "outdoor-things": tuple(range(9, 15)),  # traffic light … bench
    "person-things": (0,),
    "sports-things": tuple(range(33, 43)),  # frisbee … tennis racket
    "vehicle-things": tuple(range(1, 9)),  # bicycle … boat
}
STUFF: dict[str, tuple[int, ...]] = {
    "ceiling-stuff": (101, 102),
    "floor-stuff": (100, 113, 114, 115, 116, 117),
    "food-stuff": (120, 121, 152, 169),
    "furniture-stuff": (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164),
    "rawmaterial-stuff": (99, 131, 138, 142),
    "textile-stuff": (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167),
    "wall-stuff": tuple(range(170, 177)),
    "window-stuff": (179, 180),
    "building-stuff": (94, 95, 127, 150, 157, 165),
    "ground-stuff": (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158),
    "plant-stuff": (93, 96, 118, 123, 128, 133, 141, 162, 168),
    "sky-stuff": (105, 156),
    "solid-stuff": (126, 134, 149, 159, 161, 181),
    "structural-stuff": (98, 112, 137, 145, 163),
    "water-stuff": (119, 147, 154, 177, 178),
}


@dataclass(frozen=True)
class CocoStuff(SemanticLayout):
    """``coco/SPLIT2017`` with ``coco/stuffthingmaps/SPLIT2017``.

    Every label image counts, and needs its image; pixels whose label is of no class here do not.
    """

    @property
    def expected(self) -> str:
        return (
            f"{FOLDER}/{self.split}/*.jpg and {FOLDER}/{MAPS}/{self.split}/*.png (COCO-Stuff's "
            "stuffthingmaps_trainval2017.zip)"
        )

    def folders(self, root: Path) -> tuple[Path, Path]:
        """Of the images and of the label images."""
        return root / FOLDER / self.split, root / FOLDER / MAPS / self.split

    def pairs(self, root: Path) -> list[MaskPair]:
        images, labels = self.folders(root)
        names = stems((path.name for path in labels.iterdir()), ".png")
        return [MaskPair(name, images / f"{name}.jpg", labels / f"{name}.png") for name in names]

    def inspect(self, root: Path) -> Inspection:
        found = Inspection()
        images, labels = self.folders(root)
        pictures, maps = found.folder(images), found.folder(labels)
        names = stems(maps or (), ".png")
        found.images = len(names)
        if maps is not None and not names:
            found.problems.append(f"{labels} holds no label images")
        elif pictures is not None and names:
            found.need(labels, names, pictures, images, ".jpg")
            if not found.problems:
                self.look_at_labels(
                    found,
                    root,
                    f"{MAPS} have 0 to {VALUES - 1} and {VOID}; COCO's own label images of stuff "
                    "and of panoptic segmentation have other numbers",
                )
        return found


def layout(classes: dict[str, tuple[int, ...]], split: str, official: int) -> CocoStuff:
    """A split with these classes, numbered in their order."""
    table = [VOID] * VALUES
    for number, values in enumerate(classes.values()):
        for value in values:
            table[value] = number
    return CocoStuff(
        split=f"{split}2017",
        classes=len(classes),
        official=official,
        names=tuple(classes),
        table=tuple(table),
    )
