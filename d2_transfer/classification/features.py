"""Frozen features of all images, on disk: computed once, by all processes, in pieces.

A piece is a file, so a stopped run goes on with the next one, and any number of processes may have
computed them. Its folder's name is a sum over everything that decides the values.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from console import files
from console.errors import EnvironmentLacks, InputError, StoppedEarly
from console.progress import Bar
from d2_transfer.stops import StopRequest

from .images import Images
from .loading import evaluation_batches
from .networks import Backbone
from .processes import any_process, barrier, rank, world

PIECE = 1024  # images of a file
SPARE = 200e6  # bytes that stay free
FORMAT = 2  # changes when the same input gives other values

logger = logging.getLogger("densessl")


class Features:
    """The features of ``images`` at some ``stages`` of ``backbone``, below ``cache``.

    ``start`` tells weights apart: their sum, or the seed of a random start.
    """

    def __init__(
        self,
        cfg: CfgNode,
        backbone: Backbone,
        stages: tuple[str, ...],
        images: Images,
        start: str,
        cache: Path,
    ):
        self.cfg, self.backbone, self.stages, self.images = cfg, backbone, stages, images
        self.device = backbone.pixel_mean.device
        self.facts: dict[str, Any] = {
            "format": FORMAT,
            "weights": start,
            "backbone": backbone.name,
            "images": images.fingerprint(),
            "input": [cfg.INPUT.SIZE, cfg.INPUT.RESIZE, cfg.INPUT.INTERPOLATION],
            "amp": cfg.SOLVER.AMP.ENABLED,
            "range": cfg.INPUT.RANGE,
            "max_pixels": cfg.INPUT.MAX_PIXELS,
        }
        text = json.dumps(self.facts, sort_keys=True)
        self.folder = cache / hashlib.sha256(text.encode()).hexdigest()[:24]

    def compute(self, title: str) -> None:
        """Write the pieces that are missing, each process its share.

        Raises StoppedEarly between two pieces once any process was asked to stop, InputError for
        features that are not finite, EnvironmentLacks where the disk has no room for them.
        """
        if rank() == 0:
            files.write_json(self.folder / "facts.json", self.facts)
        barrier()
        pieces = range(0, len(self.images), PIECE)
        todo = [first for first in pieces if not all(map(Path.is_file, self._files(first)))]
        barrier()  # nobody writes before all have looked
        if rank() == 0:
            self._check_disk(len(todo))
            if held := len(pieces) - len(todo):
                logger.info("%s: %d of %d pieces are in %s", title, held, len(pieces), self.folder)
        rounds = -(-len(todo) // world())
        with Bar(title, rounds) as bar:
            for number in range(rounds):
                share = todo[number * world() : (number + 1) * world()]
                if rank() < len(share):
                    self._compute_piece(share[rank()])
                bar.advance()
                if any_process(StopRequest.asked(), self.device) and number + 1 < rounds:
                    raise StoppedEarly(
                        f"stopped after {number + 1} of {rounds} pieces of features, saved; the "
                        "same command goes on"
                    )
        barrier()

    def pieces(self, stage: str) -> Iterator[Tensor]:
        """The features at a stage, in order, ``[n, C]`` each, read as they are needed."""
        place = self.stages.index(stage)
        for first in range(0, len(self.images), PIECE):
            yield torch.from_numpy(np.load(self._files(first)[place]))

    def _check_disk(self, pieces: int) -> None:
        needed = (
            4 * min(pieces * PIECE, len(self.images)) * sum(map(self.backbone.width, self.stages))
        )
        free = shutil.disk_usage(self.folder).free
        if free < needed + SPARE:
            raise EnvironmentLacks(
                f"{self.folder} is on a disk with {free / 1e9:.1f} GB free; these features take "
                f"{needed / 1e9:.1f} GB: free some, or name a folder elsewhere with KNN.CACHE"
            )

    def _files(self, first: int) -> list[Path]:
        return [self.folder / f"{stage}_{first:09d}.npy" for stage in self.stages]

    @torch.no_grad()
    def _compute_piece(self, first: int) -> None:
        numbers = range(first, min(first + PIECE, len(self.images)))
        found: dict[str, list[Tensor]] = {stage: [] for stage in self.stages}
        amp = torch.autocast(self.device.type, torch.float16, self.cfg.SOLVER.AMP.ENABLED)
        with evaluation_batches(self.images, numbers, self.cfg) as batches, amp:
            for images, _ in batches:
                images = images.to(self.device, non_blocking=True)
                for stage, features in self.backbone.stages(images, self.stages).items():
                    found[stage].append(features.float().cpu())
        for (stage, parts), file in zip(found.items(), self._files(first), strict=True):
            features = torch.cat(parts)
            if not features.isfinite().all():
                raise InputError(
                    f"the features at {stage} of images {first} to {numbers[-1]} of "
                    f"{self.images.where} are not finite: the weights cannot be right"
                )
            files.write_atomic(file, lambda stream, held=features: np.save(stream, held.numpy()))
