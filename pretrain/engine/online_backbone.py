"""The backbone as those see it who look on while it trains: a copy in evaluation mode."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import cast

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from densessl import probes
from densessl.core.loader import GRACE, Batches, Loader, Options

from ..backbones import Backbone, build_backbone
from ..views import NORMALIZATION
from .step import AMP

BATCH = 128


class LabelledImages(Dataset):
    """Images to measure with; the last tensor of an item is negative where it cannot be read."""

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """What messages call an image."""
        raise NotImplementedError


class OnlineBackbone:
    """A backbone of its own: the run's keeps its mode, its statistics and its randomness."""

    def __init__(self, name: str, device: torch.device, amp: str = "off"):
        self.name, self.device, self.dtype = name, device, AMP[amp]

    @cached_property
    def _module(self) -> Backbone:
        with torch.random.fork_rng(devices=[]):
            return build_backbone(self.name, "BN").to(self.device)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over these tensors; evaluation mode."""
        self._module.load_state_dict(state)
        self._module.eval()

    @property
    def channels(self) -> Mapping[str, int]:
        """Of each level."""
        return self._module.channels

    @torch.no_grad()
    def levels(self, images: Tensor) -> dict[str, Tensor]:
        """The levels of images uint8 ``[B, 3, h, w]``."""
        images = self._normalised(images.to(self.device, non_blocking=True))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return self._module(images)

    def take_statistics(self, batches: Iterable[Tensor]) -> bool:
        """Give batch norm the statistics of these images; False where there is no batch norm."""
        return probes.take_statistics(cast(nn.Module, self._module), batches, self.levels)

    def batches(self, images: LabelledImages, numbers: Sequence[int], data: CfgNode) -> Batches:
        """What ``images`` gives of these numbers, in batches; the end ends the loader processes.

        ``data``: the options ``DATA``.
        """
        workers = min(data.WORKERS, math.ceil(len(numbers) / BATCH))
        loader = Loader(
            images,
            default_collate,
            images.name,
            Options(workers, data.TIMEOUT, GRACE),
            pin=self.device.type == "cuda",
            batch_sampler=[numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)],
        )
        return iter(loader)

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(NORMALIZATION[name], device=self.device).view(3, 1, 1)
            for name in ("mean", "std")
        )
        return (images.float() / 255 - mean) / std
