"""k-NN accuracy while pretraining runs: every few epochs, on a few labelled images.

It changes nothing of the run: a copy of the backbone in evaluation mode looks at the images, and
nothing is drawn.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional as T

import knn
from console.errors import InputError
from console.reading import reading
from decoding import MAX_PIXELS, SUFFIXES, Range, UnreadableImage, decode

from . import distributed
from .online_backbone import STATISTICS, OnlineBackbone

UNREADABLE = -1  # the label of an image that cannot be read; it is left out
RESIZE = 256 / 224  # the shorter side over that of the centre that is cut out

logger = logging.getLogger("densessl")


class OnlineKNN:
    """Weighted k-NN (k and τ as DINO's) of KNN.VAL among KNN.TRAIN with a method's backbone.

    ``epoch``: steps of one; ``bounds``: the run's range of values that are not of 8 bits. Raises
    InputError for folders that are not there or do not fit.
    """

    def __init__(self, cfg: CfgNode, epoch: int, device: torch.device, bounds: Range | None = None):
        self.cfg, self.options, self.device = cfg, cfg.KNN, device
        self.period = max(round(cfg.KNN.PERIOD * epoch), 1)
        self.train, self.val = (
            ClassFolders(Path(path), most, cfg.VIEWS.SIZE, option, bounds, cfg.DATA.MAX_PIXELS)
            for path, most, option in (
                (self.options.TRAIN, self.options.MAX_TRAIN, "KNN.TRAIN"),
                (self.options.VAL, self.options.MAX_VAL, "KNN.VAL"),
            )
        )
        if self.train.classes != self.val.classes:
            differ = sorted(set(self.train.classes) ^ set(self.val.classes))
            raise InputError(
                f"KNN.TRAIN has {len(self.train.classes)} class folders and KNN.VAL "
                f"{len(self.val.classes)}; they must be the same (in one alone: {differ[0]})"
            )
        self.backbone = OnlineBackbone(cfg.BACKBONE.NAME, device, cfg.AMP)

    def due(self, step: int, last: int) -> bool:
        """Whether to measure after ``step`` steps of ``last``; before the first is another call."""
        return step % self.period == 0 or step == last

    @torch.no_grad()
    def measure(self, state: dict[str, Tensor]) -> dict[str, float]:
        """``{"knn/top1": per cent}`` of the backbone with these tensors; every process calls it."""
        self.backbone.load(state)
        return {"knn/top1": self._top1("online k-NN")}

    @torch.no_grad()
    def controls(self, state: dict[str, Tensor], measured: dict[str, float]) -> dict[str, float]:
        """Of a random start with these tensors, of which ``measured`` is, the two controls.

        ``knn/top1_random``: itself. ``knn/top1_random_bn``: with the batch-norm statistics of at
        most ``STATISTICS`` of the images that vote (each process looks at all of them).
        """
        controls = {"knn/top1_random": measured["knn/top1"]}
        self.backbone.load(state)
        if self.backbone.take_statistics(self._readable()):
            controls["knn/top1_random_bn"] = self._top1("online k-NN, random_bn")
        return controls

    def _readable(self) -> Iterator[Tensor]:
        """Batches of images of KNN.TRAIN, evenly over them, for batch norm."""
        every = max(len(self.train) // STATISTICS, 1)
        with self._batches(self.train, list(range(0, len(self.train), every))) as batches:
            for images, labels in batches:
                if (readable := labels != UNREADABLE).any():
                    yield images[readable]

    def _top1(self, what: str) -> float:
        began = time.perf_counter()
        database, labels = self._features(self.train)
        readable = labels != UNREADABLE
        if not readable.any():
            raise InputError(f"KNN.TRAIN: none of the images in {self.options.TRAIN} can be read")
        queries, truth = (distributed.mine(x) for x in self._features(self.val))
        found = knn.classify(
            queries,
            database[readable],
            labels[readable],
            len(self.train.classes),
            (self.options.K,),
            self.options.TEMPERATURE,
            top=1,
        )[self.options.K]
        hits = (found[:, 0] == truth).sum().item()
        counts = {"hits": hits, "images": (truth != UNREADABLE).sum().item()}
        means = distributed.all_reduce_mean({name: float(n) for name, n in counts.items()})
        top1 = 100 * means["hits"] / max(means["images"], 1e-9)
        logger.info("%s: %.2f %% in %.1f s", what, top1, time.perf_counter() - began)
        return top1

    def _features(self, images: "ClassFolders") -> tuple[Tensor, Tensor]:
        """Features of length 1 ``[N, C]`` and labels ``[N]``, the same in every process.

        The processes share the work; what pads their shares to equal length has no label.
        """
        rank, world = distributed.rank(), distributed.world_size()
        numbers = list(range(len(images)))[rank::world]
        parts, labels = [], []
        with self._batches(images, numbers) as batches:
            for batch, of_batch in batches:
                levels = self.backbone.levels(batch)
                last = levels["cls"] if "cls" in levels else levels["layer4"].mean((2, 3))
                parts.append(knn.unit(last))
                labels.append(of_batch.to(self.device))
        channels = self.backbone.channels[max(self.backbone.channels)]
        features = torch.cat(parts) if parts else torch.empty(0, channels, device=self.device)
        found = torch.cat(labels) if labels else torch.empty(0, dtype=torch.long).to(self.device)
        missing = math.ceil(len(images) / world) - len(features)
        features = distributed.gather(F.pad(features, (0, 0, 0, missing)))
        return features, distributed.gather(F.pad(found, (0, missing), value=UNREADABLE))

    def _batches(self, images: "ClassFolders", numbers: list[int]) -> AbstractContextManager:
        """Images and labels of these numbers, in batches."""
        return self.backbone.batches(
            images, numbers, lambda number: str(images.files[number]), self.cfg.DATA
        )


class ClassFolders(Dataset):
    """Centre crops uint8 ``[3, size, size]`` and labels of at most ``most`` images (0: all) below
    ``root``, a folder a class: of each class about equally many, evenly among its sorted names.

    They are decoded with ``bounds`` and ``max_pixels``. ``each``: at most so many images a class,
    and ``most`` does not count. An image that cannot be read is black and
    has the label −1. ``option`` is for messages.
    """

    def __init__(
        self,
        root: Path,
        most: int,
        size: int,
        option: str,
        bounds: Range | None = None,
        max_pixels: int = MAX_PIXELS,
        each: int | None = None,
    ):
        self.bounds, self.max_pixels = bounds, max_pixels
        if not root.is_dir():
            raise InputError(f"{option}: {root} is no folder (looked from {Path.cwd()})")
        found = {
            folder.name: sorted(
                file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES
            )
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
        }
        found = {name: files for name, files in found.items() if files}
        if len(found) < 2:
            raise InputError(f"{option}: {root} must hold a folder of images for each class")
        self.classes, self.size = list(found), size
        if each is None and most:
            each = max(most // len(found), 1)
        self.files: list[Path] = []
        self.labels: list[int] = []
        for label, files in enumerate(found.values()):
            count = len(files) if each is None else min(each, len(files))
            self.files += [files[i * len(files) // count] for i in range(count)]
            self.labels += [label] * count

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        reading(index)
        try:
            image = decode(self.files[index], self.bounds, self.max_pixels).image
        except UnreadableImage:
            return torch.zeros(3, self.size, self.size, dtype=torch.uint8), UNREADABLE
        image = T.resize(image, round(self.size * RESIZE), T.InterpolationMode.BICUBIC)
        return T.pil_to_tensor(T.center_crop(image, [self.size] * 2)), self.labels[index]
