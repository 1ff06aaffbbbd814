"""Labelled features, block by block, as often as they are needed."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from densessl.core import watchdog

BLOCK = 2**23  # values of a block that is worked on at a time: 64 MiB in float64


class FeatureRows:
    """Features ``[N, C]`` (or blocks of their rows) with ``labels`` ``[N]`` or ``[N, classes]``.

    Raises ValueError for labels of another shape, and for an iterator, which gives its blocks only
    once.
    """

    def __init__(self, features, labels: Tensor, classes: int, dtype: torch.dtype):
        if labels.ndim == 1:
            self.counted = (labels >= 0) & (labels < classes)
            self.labelled = labels[self.counted].long().bincount(minlength=classes).cpu()
        elif labels.ndim == 2 and labels.shape[1] == classes:
            self.counted = labels.sum(1) > 0
            self.labelled = labels.double().sum(0).cpu()
        else:
            raise ValueError(f"labels are {[*labels.shape]}; needed: [N] or [N, {classes}]")
        if not self.counted.any():
            raise ValueError(f"no position has a label from 0 to {classes - 1}")
        if not isinstance(features, Tensor) and iter(features) is features:
            raise ValueError("an iterator gives its blocks once; needed: a list of blocks, say")
        self.features, self.labels, self.classes, self.dtype = features, labels, classes, dtype
        self.centred = torch.empty(0, dtype=dtype)

    def of_classes(self, present: Tensor) -> "FeatureRows":
        """The same rows with labels among the classes that are ``present``, bool ``[classes]``:
        all that have labels."""
        if present.all():
            return self
        found = copy.copy(self)
        if self.labels.ndim == 2:
            found.labels = self.labels[:, present.to(self.labels.device)]
        else:
            number = (present.long().cumsum(0) - 1).to(self.labels.device)
            found.labels = number[self.labels.long().clamp(0, self.classes - 1)]
        found.labelled = self.labelled[present.cpu()]
        return found

    def blocks(self, mean: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The labelled rows less ``mean``, in ``dtype``, and their labels, on the rows' device.

        Rows less a mean are overwritten by the next block's.
        """
        offset = 0
        for part in [self.features] if isinstance(self.features, Tensor) else self.features:
            if part.ndim != 2:
                raise ValueError(f"features are {[*part.shape]}; needed: [N, C]")
            for rows in part.split(max(1, BLOCK // max(part.shape[1], self.classes))):
                here = slice(offset, offset + len(rows))
                offset += len(rows)
                counted = self.counted[here]
                if len(counted) < len(rows):
                    break
                if not counted.all():
                    rows = rows[counted.to(rows.device)]
                if not len(rows):
                    continue
                labels = self.labels[here][counted].to(rows.device)
                rows = rows.to(self.dtype)
                watchdog.beat()
                yield (rows if mean is None else self._less(rows, mean.to(rows))), labels
        if offset != len(self.labels):
            raise ValueError(f"{offset} rows of features, {len(self.labels)} labels")

    def _less(self, rows: Tensor, mean: Tensor) -> Tensor:
        """In one buffer for all blocks: fresh memory would take longer than the arithmetic."""
        if self.centred.numel() < rows.numel() or self.centred.device != rows.device:
            self.centred = torch.empty_like(rows).flatten()
        return torch.sub(rows, mean, out=self.centred[: rows.numel()].view_as(rows))


class Moments:
    """Mean and biased variance of each channel, float64 ``[C]``, each row as often as it has
    labels; ``labelled [classes]``: how many there are."""

    def __init__(self, rows: FeatureRows):
        self.labelled = rows.labelled
        total, self.mean, squares = 0.0, torch.zeros(()), torch.zeros(())
        for x, y in rows.blocks():
            x = x.double()
            weights = (y.double().sum(1) if y.ndim == 2 else torch.ones_like(x[:, 0]))[:, None]
            n = float(weights.sum())
            mean = (weights * x).sum(0) / n
            square = (weights * (x - mean).square()).sum(0)
            mean, square = mean.cpu(), square.cpu()
            if not total:
                total, self.mean, squares = n, mean, square
                continue
            apart = mean - self.mean  # Chan et al. 1979: moments of two sets from those of each
            squares += square + apart.square() * (total * n / (total + n))
            self.mean += apart * (n / (total + n))
            total += n
        if not (self.mean.isfinite().all() and squares.isfinite().all()):
            raise ValueError("features hold values that are not finite")
        self.variance = squares / total
