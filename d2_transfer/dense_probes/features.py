"""Frozen features of positions, in pieces on disk: of all, or of those that are drawn."""

from dataclasses import dataclass
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl import probes
from densessl.core.order import seed_of

from .. import mixed_precision
from ..classification.loading import batches_of, in_order
from ..classification.networks import FeatureNetwork
from ..classification.pieces import Pieces
from .data import Split
from .loading import Samples

FLOATS = 2**23  # of a file, about: a stop waits for one
MOST = 1024  # images of a file
FORMAT = 1  # changes when the same input gives other values
STREAM = 0xD5A7  # keeps this generator apart from others of the same seed


@dataclass(frozen=True)
class Draw:
    """How many positions are drawn of each image, from those with a labelled pixel.

    ``balanced``: rare classes more often (:func:`densessl.probes.sample_positions`); else evenly.
    """

    count: int
    balanced: bool
    seed: int


class Levels:
    """``levels(images)``: the feature maps at some stages of a backbone, joined, ``[B, C, h, w]``.

    ``grid`` (h, w) is that of the finest stage (:func:`densessl.probes.join_levels`).
    """

    def __init__(self, backbone: FeatureNetwork, names: tuple[str, ...], size: tuple[int, int]):
        self.backbone, self.names = backbone, names
        self.grid = max(backbone.grid(name, size) for name in names)
        self.channels = sum(map(backbone.width, names))
        self.positions = self.grid[0] * self.grid[1]

    def __call__(self, images: Tensor) -> Tensor:
        return probes.join_levels(list(self.backbone.maps(images, self.names).values()))


class DenseFeatures(Pieces):
    """The features of a split's positions: ``features [n, C]``, image by image, row by row.

    With a ``draw`` of those drawn alone, beside ``counts [n, classes]``, the pixels of each class
    in a position's cell, and ``images [n]``, the numbers of their images. ``start`` tells weights
    apart.
    """

    def __init__(
        self,
        cfg: CfgNode,
        levels: Levels,
        split: Split,
        start: str,
        cache: Path,
        draw: Draw | None = None,
    ):
        self.cfg, self.levels, self.split, self.draw = cfg, levels, split, draw
        self.rows = min(draw.count, levels.positions) if draw else levels.positions
        size = min(max(FLOATS // (self.rows * levels.channels), 1), MOST)
        facts = {
            "format": FORMAT,
            "weights": start,
            "backbone": levels.backbone.name,
            "levels": list(levels.names),
            "images": split.fingerprint(),
            "input": [*cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION],
            "amp": mixed_precision.stands_for(cfg),
            "range": cfg.INPUT.RANGE,
            "max_pixels": cfg.INPUT.MAX_PIXELS,
            **({"channels": cfg.INPUT.CHANNELS} if cfg.INPUT.CHANNELS else {}),
            "drawn": self._drawn_as(),
            "piece": size,
        }
        arrays = ("features", "counts", "images") if draw else ("features",)
        device = levels.backbone.pixel_mean.device
        count, where = len(split), split.where
        super().__init__(facts, arrays, count, size, cache, device, where, "FEATURES.CACHE")

    def _drawn_as(self) -> list | None:
        """What decides which positions there are: nothing random where all are taken."""
        if self.draw is None:
            return None
        everything = self.draw.count >= self.levels.positions
        return [] if everything else [self.draw.count, self.draw.balanced, self.draw.seed]

    def bytes_of(self, images: int) -> float:
        classes = len(self.split.classes) + 1 if self.draw else 0
        return 4 * images * self.rows * (self.levels.channels + classes)

    @torch.no_grad()
    def arrays_of(self, numbers: range) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {name: [] for name in self.names}
        dataset = Samples(self.split, self.cfg, self.levels.grid if self.draw else None)
        batches = in_order(numbers, self.cfg.TEST.IMS_PER_BATCH)
        amp = mixed_precision.autocast(self.cfg, self.device)
        next_number = iter(numbers)
        with batches_of(dataset, batches, self.cfg, self.split.path) as loaded, amp:
            for images, counts in loaded:
                maps = self.levels(images.to(self.device, non_blocking=True))
                rows = maps.flatten(2).transpose(1, 2).cpu()  # [B, h·w, C]
                for place in range(len(rows)):
                    number = next(next_number)
                    if self.draw is None:
                        found["features"].append(rows[place])
                        continue
                    chosen = _chosen(self.draw, counts[place], number)
                    found["features"].append(rows[place, chosen])
                    found["counts"].append(counts[place, chosen])
                    found["images"].append(torch.full((len(chosen),), number))
        return {name: torch.cat(parts) for name, parts in found.items()}


def _chosen(draw: Draw, counts: Tensor, number: int) -> Tensor:
    """The positions of image ``number`` that are drawn, rising."""
    labelled = counts.sum(1).nonzero()[:, 0]
    if len(labelled) <= draw.count:
        return labelled
    generator = torch.Generator().manual_seed(seed_of(STREAM, draw.seed, number))
    if draw.balanced:
        return probes.sample_positions(counts, draw.count, generator)
    order = torch.randperm(len(labelled), generator=generator)
    return labelled[order[: draw.count]].sort().values
