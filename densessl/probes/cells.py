"""The pixels of a label image that belong to each position of a feature map."""

import torch
from torch import Tensor

IGNORED = 255


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


def majority(counts: Tensor) -> Tensor:
    """The most frequent class of each cell, long ``[…]``: of equal ones the lowest; 255 without
    any pixel that counts."""
    return counts.argmax(-1).masked_fill(counts.sum(-1) == 0, IGNORED)
