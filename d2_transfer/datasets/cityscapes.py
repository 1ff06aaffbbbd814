"""Cityscapes' layouts: ``cityscapes/{leftImg8bit,gtFine}/<split>/<city>``."""

import functools
import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from densessl.core import install, limits, pool
from densessl.core.errors import EnvironmentLacks
from densessl.probes import label_images
from densessl.probes.label_images import VOID, BadLabels

from .. import compat
from .inspection import DatasetLayout, Inspection, prepare_command, some
from .semantic import MaskPair, SemanticLayout

FOLDER = "cityscapes"
CLASSES = 19
IMAGE_END = "_leftImg8bit.png"
FEW = 64  # images that one process reads before others have begun
UNKNOWN = -1  # of label ids that Cityscapes does not have


@dataclass(frozen=True)
class Frame:
    """An image of a city, and the folder of its ground truth."""

    name: str
    image: Path
    truth: Path

    def file(self, kind: str) -> Path:
        """A file of ground truth: ``labelIds.png``, ``polygons.json``, …"""
        return self.truth / f"{self.name}_gtFine_{kind}"


def folders(root: Path, split: str) -> tuple[Path, Path]:
    """Of a split's images and of its ground truth."""
    base = root / FOLDER
    return base / "leftImg8bit" / split, base / "gtFine" / split


def frames(root: Path, split: str) -> list[Frame]:
    """Every image of a split, by city and name."""
    images, truth = folders(root, split)
    return [
        Frame(path.name.removesuffix(IMAGE_END), path, truth / path.parent.name)
        for path in sorted(images.glob(f"*/[!.]*{IMAGE_END}"))
    ]


def inspect_files(root: Path, split: str, kinds: Iterable[str]) -> tuple[Inspection, list[Frame]]:
    """Whether each image has its files of ground truth of ``kinds``, city by city."""
    found = Inspection()
    images, truth = folders(root, split)
    there = {folder: found.folder(folder) for folder in (images, truth)}
    all_frames = frames(root, split) if there[images] else []
    found.images = len(all_frames)
    if there[images] is not None and not all_frames:
        found.problems.append(f"{images} holds no CITY/*{IMAGE_END}")
    if not all_frames or there[truth] is None:
        return found, []
    cities = sorted({frame.truth for frame in all_frames})
    held = {city: found.folder(city) or set() for city in cities}
    for kind in kinds:
        absent = [f.name for f in all_frames if f.file(kind).name not in held[f.truth]]
        if absent:
            found.problems.append(f"{some(absent)} have no *_gtFine_{kind} in {truth}")
    return found, all_frames


@dataclass(frozen=True)
class CityscapesInstances(DatasetLayout):
    """Eight classes with instances: Detectron2 trains on the polygons, instanceIds are the truth
    of the evaluation."""

    split: str
    official: int = 0

    @property
    def expected(self) -> str:
        return (
            f"{FOLDER}/leftImg8bit/{self.split}/CITY/*{IMAGE_END} and {FOLDER}/gtFine/"
            f"{self.split}/CITY/*_gtFine_{{instanceIds.png,labelIds.png,polygons.json}}"
        )

    def inspect(self, root: Path) -> Inspection:
        for module in ("cityscapesscripts", "shapely"):
            _import(module)  # the reader of objects needs both
        kinds = ("instanceIds.png", "polygons.json", "labelIds.png")
        found, all_frames = inspect_files(root, self.split, kinds)
        images, _ = folders(root, self.split)
        if strays := _strays(images):
            found.problems.append(
                f"remove {some(strays)}: Detectron2's own reader stops at other files"
            )
        if not found.problems:
            found.look(all_frames, _instance_problem)
        return found


@dataclass(frozen=True)
class CityscapesSemantic(SemanticLayout):
    """Nineteen classes, from the images that ``densessl prepare cityscapes`` writes."""

    classes: int = CLASSES

    @property
    def expected(self) -> str:
        return (
            f"{FOLDER}/leftImg8bit/{self.split}/CITY/*{IMAGE_END} and {FOLDER}/gtFine/{self.split}/"
            "CITY/*_gtFine_labelTrainIds.png (densessl prepare cityscapes)"
        )

    def pairs(self, root: Path) -> list[MaskPair]:
        return [
            MaskPair(frame.name, frame.image, frame.file("labelTrainIds.png"))
            for frame in frames(root, self.split)
        ]

    def inspect(self, root: Path) -> Inspection:
        found, all_frames = inspect_files(root, self.split, ("labelTrainIds.png",))
        command = prepare_command("cityscapes", root)
        if found.problems and all_frames:
            found.problems.append(f"fix it with: {command}")
            found.problems += inspect_files(root, self.split, ("labelIds.png",))[0].problems
        elif all_frames:
            self.look_at_labels(found, root, f"remove those files, and fix it with: {command}")
        return found


def _strays(images: Path) -> list[Path]:
    """What Detectron2's reader takes for a city or an image, and is none."""
    if not images.is_dir():
        return []
    entries = sorted(images.iterdir())
    strays = [entry for entry in entries if not entry.is_dir()]
    for city in entries:
        if city.is_dir():
            strays += [path for path in city.iterdir() if not path.name.endswith(IMAGE_END)]
    return strays


def _instance_problem(frame: Frame) -> str | None:
    return _ids_problem(frame) or _polygons_problem(frame)


def _ids_problem(frame: Frame) -> str | None:
    """instanceIds hold a label's id, or id · 1000 + number for single objects."""
    path = frame.file("instanceIds.png")
    try:
        values = label_images.read(path, palette=False)
        width, height = label_images.picture_size(frame.image)
    except BadLabels as error:
        return str(error)
    if values.shape != (height, width):
        labels = f"{values.shape[1]}×{values.shape[0]}"
        return f"{path} is {labels} pixels, but its image {frame.image} is {width}×{height}"
    found = np.flatnonzero(np.bincount(values.ravel()))
    ids = np.where(found < 1000, found, found // 1000)
    wrong = [int(value) for value, label in zip(found, ids, strict=True) if not _is_label(label)]
    if wrong:
        return f"{path} has pixels of value {some(wrong)}, which is no label of Cityscapes"
    return None


def _is_label(number: int) -> bool:
    return number <= VOID and train_ids()[number] != UNKNOWN


def _polygons_problem(frame: Frame) -> str | None:
    path = frame.file("polygons.json")
    names = {label.name for label in _labels()}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size = content["imgWidth"], content["imgHeight"]
        for item in content["objects"]:
            if item["label"] not in names and item["label"].removesuffix("group") not in names:
                return f"{path} has an object '{item['label']}', which is no label of Cityscapes"
            if len(item["polygon"]) < 3:
                return f"{path} has a polygon of {len(item['polygon'])} points ('{item['label']}')"
        if size != (image := label_images.picture_size(frame.image)):
            stated, real = ("×".join(map(str, each)) for each in (size, image))
            return f"{path} says {stated} pixels, but its image {frame.image} is {real}"
    except (KeyError, TypeError, ValueError, OSError) as error:
        return f"{path} is no annotation of Cityscapes: {type(error).__name__}: {error}"
    return None


@lru_cache
def train_ids() -> np.ndarray:
    """The train id of each label id 0 to 255, int [256]: 255 for void, UNKNOWN for no label."""
    table = np.full(VOID + 1, UNKNOWN)
    for label in _labels():
        if label.id >= 0:
            table[label.id] = label.trainId
    return table


def _labels() -> list:
    return _import("cityscapesscripts.helpers.labels").labels


def _import(module: str):
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        raise EnvironmentLacks(
            f"{name} is not installed; fix it with: {install.command('transfer')}"
        ) from None


def read_objects(root: Path, split: str) -> list[dict]:
    """Every image of a split with its objects, in Detectron2's format, by city and name.

    In place of Detectron2's ``load_cityscapes_instances``: that one leaves its processes running,
    with the signal handlers of a trial, so that they never end; it reads in the order of the disk;
    and the official main's imports a package of Meta's own (detectron2#5436).
    """
    compat.setup()
    from detectron2.utils.comm import get_world_size

    from .cityscapes_objects import read_frame

    files = frames(root, split)
    read_one = functools.partial(read_frame, labels=_labels_of_objects())
    workers = 1 if len(files) <= FEW else max(limits.cores() // get_world_size(), 1)
    with pool.results(read_one, files, workers, forked=True) as records:
        return list(records)


def _labels_of_objects() -> dict[str, tuple[int, int | None]]:
    """Each label's id, and its class: 0 to 7 in ``thing_classes``' order, None for all others."""
    evaluated = [each.name for each in _labels() if each.hasInstances and not each.ignoreInEval]
    classes = {name: number for number, name in enumerate(evaluated)}
    return {each.name: (each.id, classes.get(each.name)) for each in _labels()}
