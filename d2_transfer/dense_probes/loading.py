"""Whole images at one size, with the pixels of each class in each position's cell."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms as T

from densessl.core.reading import reading
from densessl.probes import cell_counts

from ..classification.loading import transformed
from .data import Split


class Samples(Dataset):
    """``dataset[index]``: an image, uint8 ``[C, H, W]``, resized to INPUT.SIZE whatever its shape;
    counts, int32 ``[h·w, classes]``, of its label image's pixels in the cells of ``grid`` (h, w).

    Without a grid no label image is read, and counts are ``[0]``.
    """

    def __init__(self, split: Split, cfg: CfgNode, grid: tuple[int, int] | None = None):
        self.split, self.grid = split, grid
        how = T.InterpolationMode(cfg.INPUT.INTERPOLATION)
        self.transform = T.Compose([T.Resize(cfg.INPUT.SIZE, interpolation=how), T.PILToTensor()])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        reading(index)
        image = transformed(self.transform, self.split.open(index))
        if self.grid is None:
            return image, torch.empty(0)
        labels = self.split.labels_of(index)
        counts = cell_counts(labels, len(self.split.classes), self.grid)
        return image, counts.flatten(0, 1).int()
