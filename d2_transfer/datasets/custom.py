"""The user's own data in COCO's format: protocols custom_det, custom_mask and custom_keypoint.

Classes, image sizes and the length of training are read from the annotations.
"""

import logging
import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from densessl.core.errors import InputError
from densessl.core.files import full_disk_reported, write_text
from densessl.decoding import sample

from . import parted
from .coco_content import Id, ordered
from .custom_found import Annotations, shown
from .custom_keypoints import Keypoints
from .custom_reading import read as read_annotations
from .inspection import some

NAMES = TRAIN, VAL = "custom_train", "custom_val"
PERCENTILES = (5, 50, 95)
LINE = (0, 255, 0)  # the colour of a skeleton in pictures

# Sizes: 800 is to COCO's median short edge, 480 pixels, as the test size is to that of the data;
# the training sizes are to it as 640, 672, …, 800 are to 800; 1333 is the longest edge at 800.
LARGEST, LONGEST, SMALLEST = 800, 1333, 128
ENLARGED = LARGEST / 480
TRAINED_AT = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0)

# Schedule: the epochs of COCO's 2x and of VOC's 24k; divided at 2/3 and 8/9, as 1x at 60k and 80k.
EPOCHS = 24
FEWEST, MOST = 3600, 180_000  # iterations
PARTS = 90  # MAX_ITER is a multiple, so that its parts are whole numbers
WARMUP = 1000


@dataclass(frozen=True)
class Custom:
    """Two annotation files with their folders of images, checked; plain values, so that other
    processes can have it.

    ``categories``: (id, name) by id, groups left out. ``images``: those with an object to train on,
    of ``listed``; ``evaluated``: those of validation. ``short_edge``, ``long_edge``: their
    PERCENTILES over the training images, in pixels. ``bitmasks``: some mask is an RLE.
    """

    train_json: str
    train_images: str
    val_json: str
    val_images: str
    categories: tuple[tuple[Id, str], ...]
    images: int
    listed: int
    evaluated: int
    short_edge: tuple[float, ...]
    long_edge: tuple[float, ...]
    bitmasks: bool
    sha256: tuple[str, str]  # of the two JSON files
    sampled: tuple[str, ...] = ()  # training images that may have more than 8 bits, 256 at most
    texts: tuple[bytes, bytes] | None = None  # of the two files, where they are not written yet
    keypoints: Keypoints = Keypoints()  # where they are needed
    facts: dict[str, Any] | None = None  # where they come from, if not from COCO's JSON itself

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name in self.categories)

    def written(self) -> "Custom":
        """The same, once its two files are there; they are named by what they hold."""
        files = (self.train_json, self.val_json)
        for file, text in zip(files, self.texts or (), strict=False):
            if not os.path.isfile(file):
                with full_disk_reported(Path(file)):
                    write_text(file, text.decode())
        return replace(self, texts=None)

    def describe(self) -> str:
        """One line on the data."""
        drawn = parted.drawn(self.facts or {})
        if self.keypoints:
            mirror = "" if self.keypoints.mirrored else ", which no flip can mirror"
            drawn = f"; {len(self.keypoints.names)} keypoints{mirror}{drawn}"
        return (
            f"{self.images} training images with objects (of {self.listed}), {self.evaluated} to "
            f"evaluate, {self.num_classes} classes ({some(self.names)}), short edge "
            f"{self.short_edge[1]:g} px, long edge {self.long_edge[1]:g} px (medians){drawn}"
        )


def read(
    train_json: str | os.PathLike,
    train_images: str | os.PathLike,
    val_json: str | os.PathLike,
    val_images: str | os.PathLike,
    need_masks: bool = False,
    texts: tuple[bytes, bytes] | None = None,
    need_keypoints: bool = False,
) -> Custom:
    """Read and check the user's data; one InputError with all that is wrong.

    ``need_masks``: for custom_mask; ``need_keypoints``: for custom_keypoint. ``texts``: what the
    two files will hold, where they are not there yet (``Custom.written``). What is odd but can be
    trained on is a warning.
    """
    paths = [
        Path(p).expanduser().absolute() for p in (train_json, train_images, val_json, val_images)
    ]
    held = texts or (None, None)
    need = {"need_masks": need_masks, "need_keypoints": need_keypoints}
    train = read_annotations(paths[0], paths[1], evaluated=False, text=held[0], **need)
    val = read_annotations(paths[2], paths[3], evaluated=True, text=held[1], **need)
    problems = train.problems + val.problems
    remarks = [*train.remarks, *val.remarks]
    if not problems:
        remarks += _leave_out_groups(train, val)
        problems += _doubled_names(train) + _doubled_names(val) + _different_categories(train, val)
        problems += _different_keypoints(train, val)
    if problems:
        raise InputError("\n  ".join(["your data cannot be used as they are:", *problems]))
    remarks += _without_objects(train, "to train on") + _without_objects(val, "to evaluate")
    for remark in (*remarks, *_shared(train, val)):
        logging.getLogger("densessl").warning("%s", remark)
    sizes = np.array(list(train.sizes.values()))
    pictures = list(train.paths.values())
    train_json, train_images, val_json, val_images = map(str, paths)
    return Custom(
        train_json,
        train_images,
        val_json,
        val_images,
        categories=tuple(train.names.items()),
        images=len(train.trained),
        listed=len(train.paths),
        evaluated=len(val.paths),
        short_edge=tuple(np.percentile(sizes.min(1), PERCENTILES).tolist()),
        long_edge=tuple(np.percentile(sizes.max(1), PERCENTILES).tolist()),
        bitmasks=train.rle,
        sha256=(train.sha256, val.sha256),
        sampled=tuple(str(pictures[n]) for n in sample(len(pictures), lambda n: pictures[n].name)),
        texts=texts,
        keypoints=train.keypoints,
    )


def _leave_out_groups(train: Annotations, val: Annotations) -> list[str]:
    """Take out the categories that are no class but a group of others, as Roboflow's exports begin
    with: the supercategory of another, without an annotation in either file."""
    used = {*train.used, *val.used}
    groups = {
        id: name
        for each in (train, val)
        for id, name in each.names.items()
        if id not in used
        and any(above == name and other != id for other, above in each.above.items())
    }
    for each in (train, val):
        for id in groups:
            each.names.pop(id, None)
    return [
        f"category {shown(id)} '{name}' is left out: the group of others, without an annotation"
        for id, name in groups.items()
    ]


def _doubled_names(found: Annotations) -> list[str]:
    again = [name for name, n in Counter(found.names.values()).items() if n > 1]
    return [f"{found.file}: names of categories are there twice: {some(again)}"] if again else []


def _without_objects(found: Annotations, purpose: str) -> list[str]:
    if empty := [name for id, name in found.names.items() if not found.used[id]]:
        many = f"{len(empty)} of {len(found.names)} categories"
        return [f"{found.file}: {many} have no object {purpose}: {some(empty)}"]
    return []


def _different_categories(train: Annotations, val: Annotations) -> list[str]:
    """Detectron2 numbers each file's categories by itself: they must be the same."""
    if train.names == val.names:
        return []
    lines = []
    for id in ordered(train.names | val.names):
        here, there = train.names.get(id), val.names.get(id)
        if here != there:
            pair = [f"'{name}'" if name is not None else "absent" for name in (here, there)]
            lines.append(f"{shown(id)} is {pair[0]} in the first and {pair[1]} in the second")
    return [f"{train.file} and {val.file} have different categories: {some(lines)}"]


def _different_keypoints(train: Annotations, val: Annotations) -> list[str]:
    here, there = train.keypoints.names, val.keypoints.names
    if here == there:
        return []
    return [
        f"{train.file} has {len(here)} keypoints ({some(here)}) and {val.file} {len(there)} "
        f"({some(there)}); allowed: the same"
    ]


def _shared(train: Annotations, val: Annotations) -> list[str]:
    both = sorted(set(train.paths.values()) & set(val.paths.values()))
    return [f"trained on and evaluated with the same images: {some(both)}"] if both else []


def register(custom: Custom) -> None:
    """Register ``custom_train`` and ``custom_val`` in Detectron2's catalogs, anew each time."""
    from .registration import register_coco

    about_classes: dict[str, Any] = {
        "thing_classes": list(custom.names),
        "thing_dataset_id_to_contiguous_id": {
            id: number for number, (id, _) in enumerate(custom.categories)
        },
    }
    if points := custom.keypoints.names:
        about_classes |= {
            "keypoint_names": list(points),
            "keypoint_flip_map": custom.keypoints.flip_map,
            "keypoint_connection_rules": [
                (points[here - 1], points[there - 1], LINE)
                for here, there in custom.keypoints.bones
            ],
        }
    for name, file, images in (
        (TRAIN, custom.train_json, custom.train_images),
        (VAL, custom.val_json, custom.val_images),
    ):
        register_coco(name, about_classes, file, images)


def apply(custom: Custom, cfg) -> None:
    """Set classes, image sizes and schedule in a Detectron2 config that is not frozen."""
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = custom.num_classes
    cfg.DATASETS.CUSTOM = " ".join(custom.sha256)
    if custom.bitmasks:
        cfg.INPUT.MASK_FORMAT = "bitmask"  # Detectron2 cannot hold RLEs as polygons
    if points := custom.keypoints:
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = len(points.names)
        cfg.TEST.KEYPOINT_OKS_SIGMAS = points.sigmas
        if not points.mirrored:  # a mirrored image would have left and right confused
            cfg.INPUT.RANDOM_FLIP = "none"
    test, longest = image_sizes(custom)
    cfg.INPUT.MIN_SIZE_TRAIN = tuple(round(test * share) for share in TRAINED_AT)
    cfg.INPUT.MIN_SIZE_TEST = test
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = longest
    iterations = schedule(custom.images, cfg.SOLVER.IMS_PER_BATCH)
    cfg.SOLVER.MAX_ITER = iterations
    cfg.SOLVER.STEPS = (iterations * 2 // 3, iterations * 8 // 9)
    cfg.SOLVER.WARMUP_ITERS = min(WARMUP, iterations // 20)


def image_sizes(custom: Custom) -> tuple[int, int]:
    """The short edge that images are resized to for the evaluation, and the longest edge.

    The median short edge enlarged by 5/3 as COCO's is, within 128 and 800; the longest edge holds
    95 % of the images whole, and is at least 5/3 of the short one and at most 1333.
    """
    typical, long = custom.short_edge[1], custom.long_edge[2]
    short = round(min(max(typical * ENLARGED, SMALLEST), LARGEST))
    longest = max(short * LONGEST / LARGEST, long * short / typical)
    return short, round(min(longest, LONGEST))


def schedule(images: int, batch: int) -> int:
    """MAX_ITER: 24 epochs of ``images``, ``batch`` a step; at least 3600 and at most 180000."""
    iterations = min(max(EPOCHS * images / batch, FEWEST), MOST)
    return math.ceil(iterations / PARTS) * PARTS
