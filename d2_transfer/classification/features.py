"""Frozen features of all images, a row each, in pieces on disk."""

from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from .. import mixed_precision
from .images import Images
from .loading import evaluation_batches
from .networks import FeatureNetwork
from .pieces import Pieces

PIECE = 1024  # images of a file
FORMAT = 2  # changes when the same input gives other values


class Features(Pieces):
    """The features of ``images`` at some ``stages`` of ``backbone``, ``[n, C]`` each, below
    ``cache``.

    ``start`` tells weights apart: their hash, or the seed of a random start.
    """

    def __init__(
        self,
        cfg: CfgNode,
        backbone: FeatureNetwork,
        stages: tuple[str, ...],
        images: Images,
        start: str,
        cache: Path,
    ):
        self.cfg, self.backbone, self.stages, self.images = cfg, backbone, stages, images
        facts = {
            "format": FORMAT,
            "weights": start,
            "backbone": backbone.name,
            "images": images.fingerprint(),
            "input": [cfg.INPUT.SIZE, cfg.INPUT.RESIZE, cfg.INPUT.INTERPOLATION],
            "amp": mixed_precision.stands_for(cfg),
            "range": cfg.INPUT.RANGE,
            "max_pixels": cfg.INPUT.MAX_PIXELS,
        }
        device, where = backbone.pixel_mean.device, images.where
        super().__init__(facts, stages, len(images), PIECE, cache, device, where, "KNN.CACHE")

    def bytes_of(self, images: int) -> float:
        return 4 * images * sum(map(self.backbone.width, self.stages))

    @torch.no_grad()
    def arrays_of(self, numbers: range) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {stage: [] for stage in self.stages}
        amp = mixed_precision.autocast(self.cfg, self.device)
        with evaluation_batches(self.images, numbers, self.cfg) as batches, amp:
            for images, _ in batches:
                images = images.to(self.device, non_blocking=True)
                for stage, features in self.backbone.stages(images, self.stages).items():
                    found[stage].append(features.float().cpu())
        return {stage: torch.cat(parts) for stage, parts in found.items()}
