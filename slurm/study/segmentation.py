"""The task ``semseg``: folders of images and of PNG masks, measured by frozen linear probes."""

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from densessl.core.errors import InputError
from densessl.core.files import write_text
from densessl.d2_transfer.dense_probes.own import OwnData, read_own
from densessl.probes import pairs

from . import linking
from .model import PlannedProtocol, Reads, Timing

IMAGES, MASKS = ("images",), ("labels", "masks")
ANNOTATED = "annot"  # SegNet's tutorial: train and trainannot
# By effort: the shorter side that the network sees, at most, and the positions to learn from.
SHORTER = {"cpu": (192, 192, 96), "cuda": (512, 512, 256)}
STRIDE = 32
POSITIONS = {"cpu": (65_536, 16_384, 16_384), "cuda": (262_144, 65_536, 65_536)}


@dataclass(frozen=True)
class Segmentation:
    """Training and validation images with their masks. ``paths`` are the options of a transfer."""

    data: OwnData
    paths: dict[str, str | int]
    frozen: bool = True  # its protocols train no network

    @property
    def efforts(self) -> int:
        """How many there are; 0 measures as well as it can."""
        return len(POSITIONS["cpu"])

    @property
    def images(self) -> int:
        """Labelled ones, to learn from."""
        return len(self.data.train)

    @property
    def validation(self) -> int:
        return len(self.data.val)

    @cached_property
    def classes_of(self) -> list[tuple[int, ...]]:
        """The classes in each image."""
        train = self.data.train
        masks = (pairs.read_labels(mask, train.ignore) for mask in train.masks)
        void = pairs.VOID
        return [tuple(int(each) for each in np.unique(mask) if each != void) for mask in masks]

    def protocols(self, network: str, cuda: bool, effort: int = 0) -> tuple[PlannedProtocol, ...]:
        """Frozen linear probes; of more ``effort`` of fewer positions, then of smaller images."""
        kind = "cuda" if cuda else "cpu"
        levels = ("res4", "res5") if network.startswith("resnet") else ("last",)
        options = {
            "MODEL.BACKBONE": network,
            "FEATURES.LEVELS": str(levels),
            "FEATURES.POSITIONS": str(POSITIONS[kind][effort]),
            "INPUT.SIZE": str(self._size(SHORTER[kind][effort])),
            "TEST.PREDICTIONS": "4",  # for the page
        }
        if not cuda:
            options |= {"LINEAR.STEPS": "100", "DATALOADER.NUM_WORKERS": "0"}
        return (PlannedProtocol("custom_semseg", "linear", "sem_seg/mIoU", options),)

    def trial_seconds(self, network: str, cuda: bool) -> Timing:
        """Of an effort and so many labelled images, and beside that of each network, whose
        features of the validation images all trials share. A few seconds of it are run here."""
        from ..jobs import resolved
        from .speeds import Probe

        @lru_cache
        def probe(size: str) -> Probe:
            options = {**self.protocols(network, cuda)[0].options, "INPUT.SIZE": size}
            words = [word for pair in options.items() for word in pair]
            found = resolved("custom_semseg", "linear", words, gpus=int(cuda), custom=self.data)
            return Probe(found.cfg, self.data, self.validation)

        def seconds(effort: int, images: int) -> float:
            options = self.protocols(network, cuda, effort)[0].options
            return probe(options["INPUT.SIZE"])(images, int(options["FEATURES.POSITIONS"]))

        def of_network(effort: int) -> float:
            options = self.protocols(network, cuda, effort)[0].options
            return self.validation * probe(options["INPUT.SIZE"]).image

        return seconds, of_network

    def _size(self, shorter: int) -> tuple[int, int]:
        """Height and width that the network sees: the median, in whole strides."""
        train = self.data.train
        chosen = np.linspace(0, len(train) - 1, min(len(train), 64)).astype(int)
        sizes = np.array([Image.open(train.masks[number]).size[::-1] for number in chosen])
        height, width = np.median(sizes, 0)
        scale = min(1.0, shorter / min(height, width))
        height, width = (max(round(s * scale / STRIDE), 1) * STRIDE for s in (height, width))
        return height, width

    def reads(self, subset: Path | None) -> Reads:
        """Of a trial that learns from a subset's folder; None: from all."""
        if subset is None:
            return Reads(own_data=self.paths)
        kinds = ("images", "masks")
        return Reads(own_data=self.paths | {f"train_{kind}": str(subset / kind) for kind in kinds})

    def prepare(self) -> None:
        """Write the names of the classes, unless there is a list of them already: a subset may lack
        the last ones."""
        file = Path(str(self.paths["classes"]))
        if not file.is_file():
            write_text(file, "".join(f"{name}\n" for name in self.data.classes))

    def write(self, folder: Path, numbers: Sequence[int]) -> None:
        """A subset as folders of links."""
        train = self.data.train
        for kind, files in (("images", train.images), ("masks", train.masks)):
            home = Path(str(self.paths[f"train_{kind}"]))
            linking.link([files[number] for number in numbers], home, folder / kind)


def read(args: Namespace, folder: Path) -> Segmentation:
    """The data that ``--train`` and ``--val`` name, checked whole; InputError."""
    found: dict[str, Any] = {}
    for split in ("train", "val"):
        images, masks = _folders(getattr(args, split), f"--{split}")
        found |= {f"{split}_images": str(images), f"{split}_masks": str(masks)}
    for name in ("image_suffix", "mask_suffix", "ignore"):
        if getattr(args, name) is not None:
            found[name] = getattr(args, name)
    if args.classes:
        found["classes"] = str(Path(args.classes).absolute())
    data = read_own(**found)
    found.setdefault("classes", str(folder / "labels" / "classes.txt"))
    return Segmentation(data, found)


def _folders(word: str, flag: str) -> tuple[Path, Path]:
    """Of the images and of their masks."""
    if Path(word).is_dir():
        return _below(Path(word).absolute(), flag)
    parts = word.split(os.pathsep)
    if len(parts) != 2 or not all(parts):
        raise InputError(
            f"{flag} '{word}' is no folder, nor two as IMAGES{os.pathsep}MASKS; allowed also: one "
            "folder that holds images/ and labels/ or masks/"
        )
    images, masks = (Path(part).absolute() for part in parts)
    for folder in (images, masks):
        if not folder.is_dir():
            raise InputError(f"{flag}: the folder {folder} is not there")
    return images, masks


def _below(folder: Path, flag: str) -> tuple[Path, Path]:
    images = folder / IMAGES[0]
    for name in MASKS:
        if images.is_dir() and (folder / name).is_dir():
            return images, folder / name
    beside = folder.with_name(folder.name + ANNOTATED)
    if beside.is_dir():
        return folder, beside
    raise InputError(
        f"{flag} {folder} holds no folder 'images' with 'labels' or 'masks' beside it, and there "
        f"is no {beside.name} beside it; name both as IMAGES{os.pathsep}MASKS"
    )
