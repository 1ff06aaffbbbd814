"""Batches that are functions of the seed and the step: crops, flips, order.

A resumed trial has the very batches of one that was not stopped, whatever the number of workers.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms as T

from densessl.core.loader import GRACE, Batches, Loader, Options
from densessl.core.order import BatchOrder, Draw, seed_of
from densessl.core.reading import reading
from densessl.decoding.channels import Planes

from .images import Images

ORDER_STREAM, CROP_STREAM, STEP_STREAM = 0x0C1A, 0xC409, 0x57E2  # of one seed, kept apart
Order = functools.partial(BatchOrder, stream=ORDER_STREAM)


class TrainingCrops(Dataset):
    """``dataset[position, index]``: a random crop, perhaps flipped, uint8 ``[3, S, S]``; its label.

    torchvision's RandomResizedCrop and RandomHorizontalFlip (MoCo's, DINO's and VISSL's), seeded by
    the position in the stream.
    """

    def __init__(self, images: Images, cfg: CfgNode):
        self.images, self.seed = images, cfg.SEED
        scale = tuple(cfg.INPUT.CROP_SCALE)
        crop = T.RandomResizedCrop(cfg.INPUT.SIZE, scale=scale)
        self.transform = T.Compose([crop, T.RandomHorizontalFlip(), T.PILToTensor()])

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        position, index = draw
        torch.manual_seed(seed_of(CROP_STREAM, self.seed, position))
        return _sample(self, self.transform, index)


class EvaluationCrops(Dataset):
    """``dataset[index]``: the centre of the resized image, uint8 ``[3, S, S]``; its label."""

    def __init__(self, images: Images, cfg: CfgNode):
        self.images = images
        how = T.InterpolationMode(cfg.INPUT.INTERPOLATION)
        resize = T.Resize(cfg.INPUT.RESIZE, interpolation=how)
        self.transform = T.Compose([resize, T.CenterCrop(cfg.INPUT.SIZE), T.PILToTensor()])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return _sample(self, self.transform, index)


def training_batches(images: Images, cfg: CfgNode, order: BatchOrder) -> Batches:
    """Images uint8 ``[B, 3, S, S]`` and labels ``[B]`` of one step after the other.

    A context manager, whose end ends the loader processes.
    """
    return batches_of(TrainingCrops(images, cfg), order, cfg, images.path)


def evaluation_batches(images: Images, indices: range, cfg: CfgNode) -> Batches:
    """The same of the images with these numbers, each once, in their order."""
    dataset = EvaluationCrops(images, cfg)
    return batches_of(dataset, in_order(indices, cfg.TEST.IMS_PER_BATCH), cfg, images.path)


def in_order(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """The numbers, ``size`` a batch."""
    return [indices[first : first + size] for first in range(0, len(indices), size)]


def batches_of(dataset: Dataset, sampler, cfg: CfgNode, path: Callable[[int], str]) -> Batches:
    """Pairs of tensors, stacked, from a dataset that gives them.

    ``path`` names the file of a number. A context manager, whose end ends the loader processes.
    """
    workers = min(cfg.DATALOADER.NUM_WORKERS, len(sampler))
    loader = Loader(
        dataset,
        _collate,
        path,
        options_of(cfg, workers),
        pin=cfg.MODEL.DEVICE == "cuda",
        batch_sampler=sampler,
    )
    return iter(loader)


def options_of(cfg: CfgNode, workers: int) -> Options:
    """What DATALOADER says about loading; a step that has begun may still get its batch."""
    return Options(workers, cfg.DATALOADER.TIMEOUT, GRACE, "DATALOADER", "NUM_WORKERS")


def _sample(dataset, transform: Callable, index: int) -> tuple[Tensor, Tensor]:
    reading(index)
    image = dataset.images.open(index)
    return transformed(transform, image), torch.tensor(int(dataset.images.labels[index]))


def transformed(transform: Callable, image: Image.Image | Planes) -> Tensor:
    """The transform of an image, or of each of its channels with the same draws: ``[C, h, w]``."""
    if isinstance(image, Image.Image):
        return transform(image)
    drawn = torch.get_rng_state()
    bands = []
    for band in image.bands:
        torch.set_rng_state(drawn)
        bands.append(transform(band))
    return torch.cat(bands)


def _collate(samples: list) -> tuple[Tensor, Tensor]:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(labels)
