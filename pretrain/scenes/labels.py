"""The names and numbers that each layout gives to what can be seen in a scene."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One kind of thing or stuff.

    ``cityscapes`` is the name, id, train id and colour there ("dynamic" and "static" are its void
    names for what it has no class for); ``ade`` is 1 to 150, 0 meaning "other"; ``coco`` and
    ``voc`` are 0 for what is background there. ``stuff`` is COCO-Stuff's number of what
    is no thing, 92 to 182, 0 meaning "unlabeled"; ``panoptic`` COCO's of stuff in panoptic images,
    0 for none.
    """

    name: str
    cityscapes: tuple[str, int, int, tuple[int, int, int]]
    ade: int = 0
    coco: int = 0
    voc: int = 0
    stuff: int = 0
    panoptic: int = 0


DYNAMIC = ("dynamic", 5, 255, (111, 74, 0))
STATIC = ("static", 4, 255, (0, 0, 0))

# Things: their names are the same in VOC and COCO, so Detectron2's own registrations read them.
THINGS = (
    Label("person", ("person", 24, 11, (220, 20, 60)), ade=13, coco=1, voc=15),
    Label("bicycle", ("bicycle", 33, 18, (119, 11, 32)), ade=128, coco=2, voc=2),
    Label("car", ("car", 26, 13, (0, 0, 142)), ade=21, coco=3, voc=7),
    Label("bus", ("bus", 28, 15, (0, 60, 100)), ade=81, coco=6, voc=6),
    Label("bird", DYNAMIC, ade=127, coco=16, voc=3),
    Label("dog", DYNAMIC, ade=127, coco=18, voc=12),
    Label("horse", DYNAMIC, ade=127, coco=19, voc=13),
    Label("sheep", DYNAMIC, ade=127, coco=20, voc=17),
)
CLASSES = tuple(label.name for label in THINGS)

STUFF = (
    Label("wall", ("wall", 12, 3, (102, 102, 156)), ade=1, stuff=173, panoptic=199),
    Label("floor", ("ground", 6, 255, (81, 0, 81)), ade=4, stuff=115, panoptic=190),
    Label("sky", ("sky", 23, 10, (70, 130, 180)), ade=3, stuff=157, panoptic=187),
    Label("building", ("building", 11, 2, (70, 70, 70)), ade=2, stuff=96, panoptic=197),
    Label("tree", ("vegetation", 21, 8, (107, 142, 35)), ade=5, stuff=169, panoptic=184),
    Label("grass", ("terrain", 22, 9, (152, 251, 152)), ade=10, stuff=124, panoptic=193),
    Label("road", ("road", 7, 0, (128, 64, 128)), ade=7, stuff=149, panoptic=149),
    Label("sidewalk", ("sidewalk", 8, 1, (244, 35, 232)), ade=12, stuff=140, panoptic=191),
    Label("clutter", STATIC),
)

LABELS = {label.name: label for label in THINGS + STUFF}
