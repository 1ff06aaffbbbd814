"""A dense probe while pretraining runs: a linear layer on frozen positions, by label images."""

import logging
import math
import time

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as T

from densessl.core import distributed
from densessl.core.errors import InputError
from densessl.core.reading import reading
from densessl.decoding import Range
from densessl.probes import (
    Confusion,
    LinearProbe,
    Pairs,
    agreed,
    cell_counts,
    join_levels,
    largest,
    linear_probe,
    read_pairs,
    upsampled,
)

from ..backbones import last_level, strides_of
from ..backbones.resnet import STRIDES
from .online_backbone import LabelledImages
from .online_measure import OnlineMeasure

HELD_OUT = 4  # every such image is for validation, where no others are named
ITERATIONS = 100  # of L-BFGS, at most
IGNORED = 255

logger = logging.getLogger("densessl")


class OnlineProbe(OnlineMeasure):
    """mIoU of a linear layer, behind batch norm, on the positions of PROBE.LEVELS.

    The layer learns from the label images of PROBE.MASKS, each position with the pixels of its
    cell; its logits are upsampled to the pixels of those for validation. ``epoch``: steps of one;
    ``bounds``: the run's range of values that are not of 8 bits. Raises InputError for folders that
    are not there or do not fit.
    """

    metric, title = "probe/miou", "online probe"
    train: "Crops"

    def __init__(self, cfg: CfgNode, epoch: int, device: torch.device, bounds: Range | None = None):
        check(cfg)
        super().__init__(cfg, cfg.PROBE.PERIOD, epoch, device)
        self.levels = cfg.PROBE.LEVELS or default_levels(cfg.BACKBONE.NAME)
        self.train, self.val = _splits(cfg.PROBE, cfg.VIEWS.SIZE, bounds)
        self.classes = len(self.train.pairs.classes)

    def value(self, what: str) -> float:
        """mIoU: the processes share the features; the first one learns and judges."""
        began = time.perf_counter()
        features, labels = self._features(self.train)
        wanted, truth = self._features(self.val)
        found = self._judge(features, labels, wanted, truth) if distributed.is_main() else 0.0
        mean = distributed.all_reduce_mean({"miou": found})["miou"]
        miou = mean * distributed.world_size()
        logger.info("%s: %.2f %% mIoU in %.1f s", what, miou, time.perf_counter() - began)
        return miou

    def _judge(self, features: Tensor, labels: Tensor, wanted: Tensor, truth: Tensor) -> float:
        """mIoU on ``wanted`` of the layer learnt from ``features``, maps ``[n, C, h, w]``."""
        grid = tuple(features.shape[2:])
        counts = cell_counts(labels, self.classes, grid).flatten(0, 2)
        rows = features.permute(0, 2, 3, 1).flatten(0, 2)
        if not counts.any():
            raise InputError(f"PROBE.MASKS: no pixel in {self.cfg.PROBE.MASKS} has a class")
        probe: LinearProbe = linear_probe(
            rows, counts, self.classes, batch_norm=True, iterations=ITERATIONS
        )
        confusion = Confusion(self.classes)
        for part, of_part in zip(wanted.split(16), truth.split(16), strict=True):
            logits = upsampled(probe.logits(part), of_part.shape[1:])
            confusion.add(largest(logits, 1), of_part)
        return confusion.miou()

    def _features(self, images: "Crops") -> tuple[Tensor, Tensor]:
        """Maps ``[n, C, h, w]`` and labels uint8 ``[n, size, size]``, in order, in every process.

        What pads the processes' shares to equal length is left out again.
        """
        rank, world = distributed.rank(), distributed.world_size()
        numbers = list(range(len(images)))[rank::world]
        share = math.ceil(len(images) / world)
        padded = numbers + [0] * (share - len(numbers))
        maps, labels = [], []
        with self.batches(images, padded) as batches:
            for batch, of_batch, _ in batches:
                maps.append(self._maps(batch))
                labels.append(of_batch.to(self.device))
        gathered = [distributed.gather(torch.cat(each)) for each in (maps, labels)]
        return gathered[0][: len(images)], gathered[1][: len(images)]

    def _maps(self, images: Tensor) -> Tensor:
        """The levels of images, joined, ``[B, C, h, w]``."""
        levels = self.backbone.levels(images)
        return join_levels([levels[name] for name in self.levels])


def default_levels(backbone: str) -> tuple[str, ...]:
    """The levels of a backbone that are probed: of stride 16, and of a ResNet's last one."""
    strides = strides_of(backbone) or STRIDES
    chosen = {last_level(strides)} | {level for level in strides if level == "layer3"}
    return (*sorted(chosen),)


def check(cfg: CfgNode) -> None:
    """InputError for options of PROBE that do not go together or with the backbone."""
    options = cfg.PROBE
    if not (options.IMAGES and options.MASKS):
        lacking = "MASKS" if options.IMAGES else "IMAGES"
        raise InputError(
            f"PROBE.PERIOD is {options.PERIOD:g}, but PROBE.{lacking} is empty; IMAGES must be a "
            "folder of images, MASKS one of PNG label images of the same names"
        )
    if bool(options.VAL_IMAGES) != bool(options.VAL_MASKS):
        given, lacking = ("IMAGES", "MASKS") if options.VAL_IMAGES else ("MASKS", "IMAGES")
        raise InputError(f"PROBE.VAL_{given} is given, but PROBE.VAL_{lacking} is empty")
    known = strides_of(cfg.BACKBONE.NAME) or STRIDES
    for level in options.LEVELS:
        if level not in known:
            raise InputError(
                f"PROBE.LEVELS has '{level}'; {cfg.BACKBONE.NAME} has {', '.join(known)}"
            )


def _splits(options: CfgNode, size: int, bounds: Range | None) -> tuple["Crops", "Crops"]:
    """The images to learn from, and those to judge by."""
    classes = options.CLASSES or None
    pairs = _read("", options, classes, bounds)
    if options.VAL_IMAGES:
        others = _read("VAL_", options, classes, bounds)
        pairs, others = agreed(pairs, others)
        numbers, of_others = list(range(len(pairs))), list(range(len(others)))
    else:
        if len(pairs) < HELD_OUT:
            raise InputError(
                f"PROBE.IMAGES: {options.IMAGES} has only {len(pairs)} images, of which one in "
                f"{HELD_OUT} is held out; give more, or PROBE.VAL_IMAGES and PROBE.VAL_MASKS"
            )
        others, numbers = pairs, list(range(len(pairs)))
        of_others = numbers[HELD_OUT - 1 :: HELD_OUT]
        numbers = [number for number in numbers if number % HELD_OUT != HELD_OUT - 1]
    return (
        Crops(pairs, _evenly(numbers, options.MAX_TRAIN), size),
        Crops(others, _evenly(of_others, options.MAX_VAL), size),
    )


def _read(which: str, options: CfgNode, classes: str | None, bounds: Range | None) -> Pairs:
    images, masks = options[f"{which}IMAGES"], options[f"{which}MASKS"]
    try:
        return read_pairs(images, masks, classes, bounds=bounds)
    except InputError as error:
        raise InputError(f"PROBE.{which}IMAGES, PROBE.{which}MASKS: {error}") from None


def _evenly(numbers: list[int], most: int) -> list[int]:
    count = min(most or len(numbers), len(numbers))
    return [numbers[i * len(numbers) // count] for i in range(count)]


class Crops(LabelledImages):
    """Centre crops uint8 ``[3, size, size]`` of some of ``pairs``, labels ``[size, size]``, number.

    The shorter side of the image becomes ``size`` before. A file that cannot be read any more is
    black, its labels are ignored, and its number is −1.
    """

    def __init__(self, pairs: Pairs, numbers: list[int], size: int):
        self.pairs, self.numbers, self.size = pairs, numbers, size

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, index: int) -> str:
        return str(self.pairs.images[self.numbers[index]])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        reading(index)
        size = [self.size, self.size]
        try:
            image, labels = self.pairs[self.numbers[index]]
        except InputError:
            black = torch.zeros(3, *size, dtype=torch.uint8)
            return black, torch.full(size, IGNORED, dtype=torch.uint8), -1
        image = T.resize(image, self.size, InterpolationMode.BICUBIC, antialias=True)
        labels = T.resize(labels[None], self.size, InterpolationMode.NEAREST_EXACT)
        return T.center_crop(image, size), T.center_crop(labels, size)[0], index
