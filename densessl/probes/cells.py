"""Feature maps and label images at one grid of positions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cell_counts(labels: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """How many pixels of each class lie in each position's cell: int32 ``[B, h, w, classes]``.

    ``labels [B, H, W]`` (or ``[H, W]``, then ``[h, w, classes]``), whole numbers, of which those
    outside 0 … ``classes`` − 1 count nowhere; ``grid`` is (h, w). Pixel (y, x) belongs to the
    position (⌊y·h/H⌋, ⌊x·w/W⌋), which is the one that nearest upsampling puts there.
    """
    if labels.ndim == 2:
        return cell_counts(labels[None], classes, grid)[0]
    (H, W), (h, w) = labels.shape[1:], grid
    rows = torch.arange(H, device=labels.device) * h // H
    columns = torch.arange(W, device=labels.device) * w // W
    cell = rows[:, None] * w + columns
    found = []
    for each in labels:
        each = each.long()
        counted = (each >= 0) & (each < classes)
        pairs = cell[counted] * classes + each[counted]
        found.append(pairs.bincount(minlength=h * w * classes).int().view(h, w, classes))
    return torch.stack(found)


def shares(counts: Tensor) -> Tensor:
    """Soft labels: counts ``[…, classes]`` over their sum, float32; zeros where nothing counts."""
    return counts.float() / counts.sum(-1, keepdim=True).clamp(min=1)


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


def largest(values: Tensor, dim: int) -> Tensor:
    """The index of the largest value along ``dim``, the first of equal ones: argmax, sooner on a
    CPU (docs/measurements.md)."""
    return values.max(dim).indices
