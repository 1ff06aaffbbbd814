"""VOC2012's segmentation with the masks of SBD: 10582 training images instead of 1464.

Source: Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011 (SBD); the lists are
those that FCN papers train on: VOC's train and all of SBD, without VOC's val.
"""

from pathlib import Path

import numpy as np

from densessl.core.errors import InputError
from densessl.core.files import read_text
from densessl.probes import label_images
from densessl.probes.label_images import BadLabels

from .. import voc_masks
from ..inspection import Inspection, stems
from ..semantic import VOC_FOLDER
from .plan import Item, Plan


def plan(root: Path, sbd: Path | None = None) -> Plan:
    """``voc_aug``: labels and lists; InputError where VOC2012 or SBD is not there or not whole."""
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
    return Plan(items, labels, counts, texts)


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
    masks = {}
    for split in ("train", "val"):
        listed = folder / f"{split}.txt"
        names = found.names(listed)
        found.need(listed, names, there, folder / "cls", ".mat")
        masks |= {name: folder / "cls" / f"{name}.mat" for name in names}
    return masks


def labels(item: Item) -> np.ndarray:
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
        said = f"{type(error).__name__}: {error}"
        raise BadLabels(f"{path} is not a mask of SBD (GTcls.Segmentation): {said}") from None
    if mask.ndim != 2 or mask.dtype.kind not in "iu" or mask.min() < 0:
        raise BadLabels(f"{path}: GTcls.Segmentation is {mask.dtype} {mask.shape}, no mask")
    return mask
