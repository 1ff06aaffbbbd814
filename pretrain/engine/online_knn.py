"""k-NN accuracy while pretraining runs: every few epochs, on a few labelled images."""

import logging
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor
from torchvision.transforms import functional as T

from densessl.core import distributed, knn
from densessl.core.errors import InputError
from densessl.core.files import walk
from densessl.core.reading import reading
from densessl.decoding import MAX_PIXELS, Range, UnreadableImage, decode, is_image

from ..backbones import last_level, pooled
from .online_backbone import LabelledImages
from .online_measure import OnlineMeasure

UNREADABLE = -1  # the label of an image that cannot be read; it is left out
RESIZE = 256 / 224  # the shorter side over that of the centre that is cut out

logger = logging.getLogger("densessl")


class OnlineKNN(OnlineMeasure):
    """Weighted k-NN (k and τ as DINO's) of KNN.VAL among KNN.TRAIN with a method's backbone.

    ``epoch``: steps of one; ``bounds``: the run's range of values that are not of 8 bits. Raises
    InputError for folders that are not there or do not fit.
    """

    metric, title = "knn/top1", "online k-NN"
    train: "ClassFolders"

    def __init__(self, cfg: CfgNode, epoch: int, device: torch.device, bounds: Range | None = None):
        super().__init__(cfg, cfg.KNN.PERIOD, epoch, device)
        self.options = cfg.KNN
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

    def value(self, what: str) -> float:
        """Top 1, of which the processes share the work."""
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
        with self.batches(images, numbers) as batches:
            for batch, of_batch in batches:
                parts.append(knn.unit(pooled(self.backbone.levels(batch))))
                labels.append(of_batch.to(self.device))
        channels = self.backbone.channels[last_level(self.backbone.channels)]
        features = torch.cat(parts) if parts else torch.empty(0, channels, device=self.device)
        found = torch.cat(labels) if labels else torch.empty(0, dtype=torch.long).to(self.device)
        missing = math.ceil(len(images) / world) - len(features)
        features = distributed.gather(F.pad(features, (0, 0, 0, missing)))
        return features, distributed.gather(F.pad(found, (0, missing), value=UNREADABLE))


class ClassFolders(LabelledImages):
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
                Path(directory, file)
                for directory, _, names in walk(folder)
                for file in names
                if is_image(file)
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

    def name(self, index: int) -> str:
        return str(self.files[index])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        reading(index)
        try:
            image = decode(self.files[index], self.bounds, self.max_pixels).image
        except UnreadableImage:
            return torch.zeros(3, self.size, self.size, dtype=torch.uint8), UNREADABLE
        image = T.resize(image, round(self.size * RESIZE), T.InterpolationMode.BICUBIC)
        return T.pil_to_tensor(T.center_crop(image, [self.size] * 2)), self.labels[index]
