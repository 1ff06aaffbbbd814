"""What is to be written of each data set: label images, each from one file, and lists of names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from densessl.core.errors import InputError
from densessl.core.files import read_json, read_text
from densessl.probes import label_images
from densessl.probes.label_images import BadLabels

from .. import voc_masks
from ..cityscapes import UNKNOWN, inspect_files, train_ids
from ..coco_panoptic import stuff_labels
from ..inspection import Inspection, some, stems
from ..layouts import LAYOUTS
from ..semantic import ADE_CLASSES, VOC_FOLDER, reduce_zero


@dataclass(frozen=True)
class Item:
    """A label image: ``target``, made of ``source``, for the picture ``image``."""

    source: Path
    target: Path
    image: Path


@dataclass(frozen=True)
class PreparationPlan:
    """All label images of a data set.

    ``labels(item)`` gives the numbers of one, uint8 [height, width], or raises BadLabels; it runs
    in other processes, so it is a function of a module. ``lists``: text files, written last.
    ``counts``: the images of each data set that is then complete.
    """

    items: list[Item]
    labels: Callable[[Item], np.ndarray]
    counts: dict[str, int]
    lists: dict[Path, str] = field(default_factory=dict)


def ade20k(root: Path, sbd: Path | None = None) -> PreparationPlan:
    """``annotations_detectron2`` of both splits; InputError where the originals are not there."""
    items, counts, problems = [], {}, []
    for name in ("ade20k_sem_seg_train", "ade20k_sem_seg_val"):
        found = Inspection()
        layout: Any = LAYOUTS[name]
        images, originals, targets = layout.folders(root)
        pictures, annotations = found.folder(images) or set(), found.folder(originals) or set()
        names = stems(annotations, ".png")
        if not found.problems:
            if not names:
                found.problems.append(f"{originals} holds no label images")
            found.need(originals, names, pictures, images, ".jpg")
        problems += found.problems
        counts[name] = len(names)
        for each in names:
            file = f"{each}.png"
            items.append(Item(originals / file, targets / file, images / f"{each}.jpg"))
    if problems:
        raise InputError("\n  ".join(["ADE20K is not as it was published:", *problems]))
    return PreparationPlan(items, ade20k_labels, counts)


def ade20k_labels(item: Item) -> np.ndarray:
    """One annotation, its numbers checked and reduced by one."""
    values = label_images.read(item.source)
    label_images.check(item.source, values, ADE_CLASSES + 1, item.image, void=False)
    return reduce_zero(values)


def cityscapes(root: Path, sbd: Path | None = None) -> PreparationPlan:
    """The files of both splits; InputError where images or labelIds are not there."""
    train_ids()  # or the environment lacks its table
    items, counts, problems = [], {}, []
    for split in ("train", "val"):
        found, frames = inspect_files(root, split, ("labelIds.png",))
        problems += found.problems
        counts[f"cityscapes_fine_sem_seg_{split}"] = len(frames)
        items += [
            Item(frame.file("labelIds.png"), frame.file("labelTrainIds.png"), frame.image)
            for frame in frames
        ]
    if problems:
        raise InputError("\n  ".join(["Cityscapes is not as it was published:", *problems]))
    return PreparationPlan(items, cityscapes_labels, counts)


def cityscapes_labels(item: Item) -> np.ndarray:
    """The train id of every pixel, by cityscapesScripts' table."""
    values = label_images.read(item.source)
    table = train_ids()
    label_images.check(item.source, values, len(table), item.image)
    trained = table[values]
    if (unknown := np.unique(values[trained == UNKNOWN])).size:
        raise BadLabels(
            f"{item.source} has pixels of value {some(unknown.tolist())}, which is no label id of "
            "Cityscapes"
        )
    return trained.astype(np.uint8)


def voc_aug(root: Path, sbd: Path | None = None) -> PreparationPlan:
    """VOC2012's segmentation with the masks of SBD: 10582 training images instead of 1464.

    Source: Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011 (SBD); the lists
    are those that FCN papers train on: VOC's train and all of SBD, without VOC's val. InputError
    where VOC2012 or SBD is not there or not whole.
    """
    found = voc_masks.inspect(root)
    masks = _sbd_masks(found, root, sbd)
    if found.problems:
        raise InputError("\n  ".join(["VOC2012 or SBD is not as published:", *found.problems]))
    voc = voc_masks.VocMasks(root)
    train, val = (read_text(voc.listed(split)).split() for split in ("train", "val"))
    masks |= {name: voc.masks / f"{name}.png" for name in train + val}  # the finer ones
    augmented = sorted(set(masks) - set(val))
    found.need(root / VOC_FOLDER, augmented, found.folder(voc.images) or (), voc.images, ".jpg")
    if found.problems:
        raise InputError("\n  ".join(["SBD has images that VOC2012 has not:", *found.problems]))
    base = root / VOC_FOLDER
    items = [
        Item(masks[name], base / "labels" / f"{name}.png", voc.images / f"{name}.jpg")
        for name in augmented + val
    ]
    lists = {base / "val.txt": val, base / "train_aug.txt": augmented}
    counts = {"voc_2012_aug_semseg_train": len(augmented), "voc_2012_semseg_val": len(val)}
    texts = {path: "".join(f"{name}\n" for name in names) for path, names in lists.items()}
    return PreparationPlan(items, voc_aug_labels, counts, texts)


def _sbd_masks(found: Inspection, root: Path, given: Path | None) -> dict[str, Path]:
    """The masks of SBD by name: MATLAB files, or PNGs that others have made of them."""
    sbd = voc_masks.find_sbd(root, given)
    if sbd is None:
        found.problems.append(voc_masks.no_sbd(root, given))
        return {}
    folder = sbd.folder
    if sbd.ready:
        names = stems(found.folder(folder) or (), ".png")
        return {name: folder / f"{name}.png" for name in names}
    there = found.folder(folder / "cls") or set()
    masks: dict[str, Path] = {}
    for split in ("train", "val"):
        listed = folder / f"{split}.txt"
        names = found.names(listed)
        found.need(listed, names, there, folder / "cls", ".mat")
        masks |= {name: folder / "cls" / f"{name}.mat" for name in names}
    return masks


def voc_aug_labels(item: Item) -> np.ndarray:
    """The class of every pixel, 0 to 20 and 255."""
    matlab = item.source.suffix == ".mat"
    values = read_mat(item.source) if matlab else label_images.read(item.source)
    label_images.check(item.source, values, voc_masks.CLASSES, item.image)
    return values.astype(np.uint8)


def read_mat(path: Path) -> np.ndarray:
    """The class mask in one of SBD's files: the field Segmentation of the struct GTcls."""
    from scipy.io import loadmat

    try:
        mask = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy has no one kind for damaged files
        reason = f"{type(error).__name__}: {error}"
        raise BadLabels(f"{path} is not a mask of SBD (GTcls.Segmentation): {reason}") from None
    if mask.ndim != 2 or mask.dtype.kind not in "iu" or mask.min() < 0:
        raise BadLabels(f"{path}: GTcls.Segmentation is {mask.dtype} {mask.shape}, no mask")
    return mask


@dataclass(frozen=True)
class SegmentsItem(Item):
    """One of a panoptic image: ``categories``, of each segment its number and category id."""

    categories: tuple[tuple[int, int], ...] = ()


def coco_panoptic(root: Path, sbd: Path | None = None) -> PreparationPlan:
    """``panoptic_stuff_*`` of both splits; InputError where the panoptic images are not there."""
    items: list[Item] = []
    counts, problems = {}, []
    for split in ("train", "val"):
        found = Inspection()
        layout: Any = LAYOUTS[name := f"coco_2017_{split}_panoptic_separated"]
        file, folder = layout.annotations(root), layout.segments(root)
        there = found.folder(folder)
        try:
            annotations = read_json(file)["annotations"]
            listed = {
                each["file_name"]: tuple(
                    (one["id"], one["category_id"]) for one in each["segments_info"]
                )
                for each in annotations
            }
        except FileNotFoundError:
            found.problems.append(f"{file} is not there")
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.problems.append(f"{file} cannot be read: {error!r}")
        else:
            if there is not None:
                found.need(file, list(listed), there, folder, "")
            images = root / layout.objects.images
            items += [
                SegmentsItem(
                    folder / each,
                    layout.stuff(root) / each,
                    images / f"{Path(each).stem}.jpg",
                    categories,
                )
                for each, categories in listed.items()
            ]
            counts[name] = len(listed)
        problems += found.problems
    if problems:
        raise InputError("\n  ".join(["COCO's panoptic images are not as published:", *problems]))
    return PreparationPlan(items, coco_panoptic_labels, counts)


def coco_panoptic_labels(item: Item) -> np.ndarray:
    """The stuff of one panoptic image: 0 for things, 1 to 53, 255 for none."""
    assert isinstance(item, SegmentsItem)
    return stuff_labels(item.source, dict(item.categories))


PLANS = {
    "voc_aug": voc_aug,
    "cityscapes": cityscapes,
    "coco_panoptic": coco_panoptic,
    "ade20k": ade20k,
}
