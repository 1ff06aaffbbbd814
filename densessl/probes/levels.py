"""Feature maps of several levels at one grid of positions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def join_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps ``[B, Cᵢ, hᵢ, wᵢ]`` one after the other, ``[B, ΣCᵢ, h, w]`` in float32; the coarser ones
    are upsampled to the grid (h, w) of the finest."""
    grid = max(tuple(each.shape[2:]) for each in maps)
    return torch.cat([upsampled(each.float(), grid) for each in maps], 1)


def upsampled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """``[B, C, H, W]``, bilinear; a position stands for its cell (align_corners off)."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
