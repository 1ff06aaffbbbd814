"""The labelled images of a protocol: found and checked before anything runs."""

import logging
import os
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode

from densessl.core.errors import InputError

from .. import channels
from ..datasets.checks import advice, root_folder
from ..datasets.labelled import drawn
from .config import combinations
from .folders import SEEDED, labelled, read_folders, remark_on_list
from .images import Images, draw_of_each_class
from .own import OwnImages
from .small_sets import SETS, read_small
from .voc_objects import EXPECTED, read_voc_objects

IMAGENET = (1281167, 50000)  # images of ImageNet's train and val
HELD_OUT_STREAM = 0x4E1D  # keeps this generator apart from others of the same seed

logger = logging.getLogger("densessl")


def check_data(
    cfg: CfgNode,
    data: str | os.PathLike | OwnImages | None = None,
    stand_in: bool = False,
    evaluates: bool = False,
) -> Path | OwnImages:
    """The folder that holds the data sets, or the user's own data; InputError with what is missing,
    and where it must be.

    Looks at all file names and at the list of labelled images, and opens an image of each split; a
    number of images that is not the real data set's, or not the protocol's, is a warning, but for a
    ``stand_in`` (``--mini``). A model that is trained (``evaluates``) needs the same.
    """
    if isinstance(data, OwnImages):
        if combinations(cfg):
            hold_out(training_images(cfg, data.train, data), cfg.SEARCH.HELD_OUT, cfg.SEED)
        return data
    root, named_by = root_folder(data)
    try:
        splits = read(cfg, root)
        for split in splits:
            split.open(0)
    except InputError as error:
        raise InputError(
            f"{_title(cfg)} is missing or not right below {root} (from {named_by}): {error}.\n"
            f"expected: {_expected(cfg, root)}\n{_advice(cfg)}"
        ) from None
    train = training_images(cfg, splits[0], root)
    if combinations(cfg):
        hold_out(train, cfg.SEARCH.HELD_OUT, cfg.SEED)
    sizes = tuple(map(len, splits))
    official = _official(cfg)
    if official and sizes != official and not stand_in:
        logger.warning(
            "%s has %d training and %d test images, not %d and %d: metrics compare with no paper's",
            _title(cfg),
            *sizes,
            *official,
        )
    if cfg.DATASETS.LIST not in ("", SEEDED):
        remark_on_list(train, splits[0], cfg.DATASETS.LIST, cfg.DATASETS.SHARE)
    return root


def training_files(cfg: CfgNode, root: Path | OwnImages) -> list[Path]:
    """The files of all training images; none where they are not files of their own."""
    train, _ = read(cfg, root)
    return [train.root / train.name(index) for index in range(len(train) * (train.pixels is None))]


def read(cfg: CfgNode, root: Path | OwnImages) -> tuple[Images, Images]:
    """All training and all test images of ``cfg.DATASETS``, decoded as INPUT says; InputError."""
    train, test = (channels.decoded(images, cfg) for images in _read(cfg, root))
    return train, test


def _read(cfg: CfgNode, root: Path | OwnImages) -> tuple[Images, Images]:
    sets = cfg.DATASETS
    if isinstance(root, OwnImages):
        return root.train, root.val
    if sets.NAME == "folder":
        return read_folders(root / sets.FOLDER, (sets.TRAIN, sets.VAL), sets.CLASSES)
    if sets.CLASSES:
        raise InputError(f"DATASETS.CLASSES is '{sets.CLASSES}', but {sets.NAME} has its own")
    if sets.NAME == "voc_objects":
        return read_voc_objects(root)
    return read_small(sets.NAME, root)


def training_images(
    cfg: CfgNode, train: Images, root: Path | OwnImages, says: bool = False
) -> Images:
    """Those of the training images whose labels the protocol may use (DATASETS.LIST, LABELS).

    ``says``: whether this process logs how many.
    """
    sets = cfg.DATASETS
    if sets.LABELS:
        if sets.LIST:
            raise InputError(
                f"--labels is '{sets.LABELS}', but DATASETS.LIST '{sets.LIST}' says already which "
                "images have labels; allowed: one of the two"
            )
        labels = train.labels.tolist()
        return train.subset(drawn(cfg, len(train), lambda number: {labels[number]}, says))
    if not sets.LIST:
        return train
    if isinstance(root, OwnImages):
        raise InputError(f"DATASETS.LIST is '{sets.LIST}'; allowed for your own data: --labels")
    return labelled(train, sets.LIST, sets.SHARE, root / sets.FOLDER, cfg.SEED)


def hold_out(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """The images without ``share`` of each class (at least one image of each), and these.

    A class keeps one image to learn from. Raises InputError where no class has two.
    """
    held = draw_of_each_class(images, share, (HELD_OUT_STREAM, seed), keep=1)
    if not len(held):
        raise InputError(
            f"{images.where}: no class has labelled images to hold out for a search; give more "
            "labels, or no grid: 'SEARCH.BASE_LR ()' 'SEARCH.WEIGHT_DECAY ()' "
            "'SEARCH.HEAD_LR_FACTOR ()'"
        )
    return images.subset(np.setdiff1d(np.arange(len(images)), held)), images.subset(held)


def _title(cfg: CfgNode) -> str:
    sets = cfg.DATASETS
    if sets.NAME == "folder":
        return f"the data set '{sets.FOLDER}'"
    return "VOC's objects" if sets.NAME == "voc_objects" else SETS[sets.NAME].title


def _expected(cfg: CfgNode, root: Path) -> str:
    sets = cfg.DATASETS
    if sets.NAME == "folder":
        folder = root / sets.FOLDER
        return (
            f"{folder / sets.TRAIN}/CLASS/… and {folder / sets.VAL}/CLASS/…, a folder of images a "
            "class (DATASETS.FOLDER, TRAIN and VAL name others)"
        )
    if sets.NAME == "voc_objects":
        return f"{root / 'VOC2007'} and {root / 'VOC2012'} with {EXPECTED}"
    one = SETS[sets.NAME]
    return f"{root / one.folder} with {one.expected}, as torchvision has them"


def _advice(cfg: CfgNode) -> str:
    sets = cfg.DATASETS
    imagenet = (sets.NAME, sets.FOLDER, sets.CLASSES) == ("folder", "imagenet", "")
    if imagenet or sets.NAME == "voc_objects":
        return advice([])
    other = "--variant voc_objects"
    if sets.NAME == "folder":
        other = "DATASETS.FOLDER imagenet without DATASETS.CLASSES"
    return advice([_title(cfg)], f"; they do of {other}")


def _official(cfg: CfgNode) -> tuple[int, int] | None:
    sets = cfg.DATASETS
    if sets.NAME in SETS:
        return SETS[sets.NAME].official
    imagenet = (sets.NAME, sets.FOLDER, sets.CLASSES) == ("folder", "imagenet", "")
    return IMAGENET if imagenet else None
