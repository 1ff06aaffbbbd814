"""Projectors, predictors and queues."""

import torch
from torch import Tensor, nn

from ..backbones import SyncBatchNorm
from ..precision import full_precision


@full_precision
def unit(x: Tensor) -> Tensor:
    """``x [B, D, …]`` with every vector over D scaled to length 1, in full precision."""
    return nn.functional.normalize(x, dim=1)


class Projector(nn.Sequential):
    """Linear–ReLU–Linear on the pooled map: ``[B, C, h, w]`` → ``[B, D]`` (MoCo-v2).

    ``hidden`` 0 is MoCo-v1's single linear layer.
    """

    def __init__(self, channels: int, hidden: int, dim: int):
        if hidden:
            super().__init__(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        else:
            super().__init__(nn.Linear(channels, dim))

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z.mean((2, 3)))


class DenseProjector(nn.Sequential):
    """1×1 convolution–ReLU–1×1 convolution: ``[B, C, h, w]`` → ``[B, D, h, w]`` (DenseCL).

    ``hidden`` 0 is a single 1×1 convolution.
    """

    def __init__(self, channels: int, hidden: int, dim: int):
        if hidden:
            super().__init__(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, dim, 1))
        else:
            super().__init__(nn.Conv2d(channels, dim, 1))


def layer(channels: int, out: int, dense: bool, bias: bool = True) -> nn.Module:
    """A linear layer over channels: of vectors, or (``dense``) of every position of a map."""
    return nn.Conv2d(channels, out, 1, bias=bias) if dense else nn.Linear(channels, out, bias=bias)


class MLP(nn.Sequential):
    """Layer–BN–ReLU–layer, the batch norm over all processes; of vectors or of maps.

    SimSiam's predictor (``bias`` False: of the first layer), BYOL's and PixPro's heads, SimCLR's
    and SwAV's projectors. ``[B, C]`` → ``[B, D]``, or with ``dense`` the same at each position.
    """

    def __init__(
        self, channels: int, hidden: int, dim: int, dense: bool = False, bias: bool = True
    ):
        super().__init__(
            layer(channels, hidden, dense, bias),
            SyncBatchNorm(hidden),
            nn.ReLU(),
            layer(hidden, dim, dense),
        )


class SimSiamProjector(nn.Sequential):
    """Three layers with batch norm, the last norm without weights (SimSiam, 3; official code).

    The last layer's bias, which the norm cancels, is frozen as in the official code.
    """

    def __init__(self, channels: int, hidden: int, dim: int, dense: bool = False):
        last = layer(hidden, dim, dense)
        last.bias.requires_grad_(False)
        super().__init__(
            layer(channels, hidden, dense, bias=False),
            SyncBatchNorm(hidden),
            nn.ReLU(),
            layer(hidden, hidden, dense, bias=False),
            SyncBatchNorm(hidden),
            nn.ReLU(),
            last,
            SyncBatchNorm(dim, affine=False),
        )


class Queue(nn.Module):
    """The K newest keys, unit vectors ``[K, D]``, overwritten in a circle (MoCo section 3.2)."""

    keys: Tensor
    pointer: Tensor

    def __init__(self, length: int, dim: int):
        super().__init__()
        self.register_buffer("keys", unit(torch.randn(length, dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest keys by ``keys [M, D]``, of which only the last K stay."""
        K = len(self.keys)
        skipped = max(len(keys) - K, 0)
        place = (self.pointer + skipped + torch.arange(len(keys) - skipped, device=keys.device)) % K
        self.keys.index_copy_(0, place, keys[skipped:].to(self.keys.dtype))
        self.pointer.add_(len(keys)).remainder_(K)
