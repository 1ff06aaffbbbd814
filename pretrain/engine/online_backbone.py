"""The backbone as those see it who look on while it trains: a copy in evaluation mode."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbones import build_backbone
from ..views import NORMALIZATION
from .step import AMP


class OnlineBackbone:
    """A backbone of its own: the run's keeps its mode, its statistics and its randomness."""

    def __init__(self, name: str, device: torch.device, amp: str = "off"):
        self.name, self.device, self.dtype = name, device, AMP[amp]
        self._module: nn.Module | None = None

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over these tensors; evaluation mode."""
        if self._module is None:
            with torch.random.fork_rng(devices=[]):
                self._module = build_backbone(self.name, "BN").to(self.device)
        self._module.load_state_dict(state)
        self._module.eval()

    @property
    def channels(self) -> dict[str, int]:
        """Of each level."""
        return self._module.channels

    @torch.no_grad()
    def levels(self, images: Tensor) -> dict[str, Tensor]:
        """The levels of images uint8 ``[B, 3, h, w]``."""
        images = self._normalised(images.to(self.device, non_blocking=True))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return self._module(images)

    def take_statistics(self, batches: Iterable[Tensor]) -> bool:
        """Give batch norm the statistics of these images, cumulative averages over the batches.

        As a random network is given in the control ``random_bn``; False, and nothing is done, where
        there is no batch norm.
        """
        norms = [each for each in self._module.modules() if isinstance(each, _BatchNorm)]
        if not norms:
            return False
        momentum = norms[0].momentum
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for images in batches:
            self.levels(images)
        for norm in norms:
            norm.momentum = momentum
        self._module.eval()
        return True

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(NORMALIZATION[name], device=self.device).view(3, 1, 1)
            for name in ("mean", "std")
        )
        return (images.float() / 255 - mean) / std
