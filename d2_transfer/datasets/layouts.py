"""Where each data set lies below DETECTRON2_DATASETS: Detectron2's own names and folders."""

from collections.abc import Iterable

from . import coco_stuff, voc_masks
from .camvid import CamVidSemantic
from .cityscapes import CityscapesInstances, CityscapesSemantic
from .coco_panoptic import PanopticLayout
from .detection import CocoLayout, VocLayout
from .inspection import DatasetLayout
from .lvis import LvisLayout
from .semantic import AdeSemantic, SemanticLayout, VocSemantic


def _coco(split: str, kind: str, official: int) -> CocoLayout:
    file = f"coco/annotations/{kind}_{split}2017.json"
    return CocoLayout(file, f"coco/{split}2017", official, kind == "person_keypoints")


COARSE = {  # COCO-Stuff's classes: all, those of stuff, those of things
    "coco_stuff27": coco_stuff.THINGS | coco_stuff.STUFF,
    "coco_stuff15": coco_stuff.STUFF,
    "coco_things12": coco_stuff.THINGS,
}

# The counts are those of the real data sets.
LAYOUTS: dict[str, DatasetLayout] = {
    "voc_2007_trainval": VocLayout("VOC2007", "trainval", 2007, 5011),
    "voc_2007_test": VocLayout("VOC2007", "test", 2007, 4952),
    "voc_2012_trainval": VocLayout("VOC2012", "trainval", 2012, 11540),
    "coco_2017_train": _coco("train", "instances", 118287),
    "coco_2017_val": _coco("val", "instances", 5000),
    "keypoints_coco_2017_train": _coco("train", "person_keypoints", 118287),
    "keypoints_coco_2017_val": _coco("val", "person_keypoints", 5000),
    "coco_2017_train_panoptic_separated": PanopticLayout("train", 118287),
    "coco_2017_val_panoptic_separated": PanopticLayout("val", 5000),
    "lvis_v0.5_train": LvisLayout("lvis/lvis_v0.5_train.json", 1230, 57263),
    "lvis_v0.5_val": LvisLayout("lvis/lvis_v0.5_val.json", 1230, 5000),
    "lvis_v1_train": LvisLayout("lvis/lvis_v1_train.json", 1203, 100170),
    "lvis_v1_val": LvisLayout("lvis/lvis_v1_val.json", 1203, 19809),
    "cityscapes_fine_instance_seg_train": CityscapesInstances("train", 2975),
    "cityscapes_fine_instance_seg_val": CityscapesInstances("val", 500),
    "cityscapes_fine_sem_seg_train": CityscapesSemantic("train", official=2975),
    "cityscapes_fine_sem_seg_val": CityscapesSemantic("val", official=500),
    "voc_2012_aug_semseg_train": VocSemantic("train_aug", voc_masks.CLASSES, 10582),
    "voc_2012_semseg_val": VocSemantic("val", voc_masks.CLASSES, 1449),
    "ade20k_sem_seg_train": AdeSemantic("training", official=20210),
    "ade20k_sem_seg_val": AdeSemantic("validation", official=2000),
    "camvid_sem_seg_train": CamVidSemantic("train", official=367),
    "camvid_sem_seg_val": CamVidSemantic("val", official=101),
    "camvid_sem_seg_test": CamVidSemantic("test", official=233),
    **{
        f"{name}_{split}": coco_stuff.layout(classes, split, official)
        for name, classes in COARSE.items()
        for split, official in (("train", 118287), ("val", 5000))
    },
}


def are_panoptic(names: Iterable[str]) -> bool:
    """Whether the data sets of a protocol have objects and label images of the same pictures."""
    return any(isinstance(LAYOUTS.get(name), PanopticLayout) for name in names)


def are_semantic(names: Iterable[str]) -> bool:
    """Whether the data sets of a protocol have label images, and no objects."""
    return any(isinstance(LAYOUTS.get(name), SemanticLayout) for name in names)
