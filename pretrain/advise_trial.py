"""A few steps of a config on its real images, on this machine: how fast, and how much memory."""

import itertools
import resource
import sys
import time
from dataclasses import dataclass

import torch
from fvcore.common.config import CfgNode

from densessl.core import distributed
from densessl.core.loader import Loader
from densessl.core.units import many

from .engine.build import build_model
from .engine.image_range import normalization_of_run, range_of_run
from .engine.loading import options_of
from .engine.order import BatchOrder
from .engine.placement import hasten, runs_ahead, settled
from .engine.schedules import scaled_lr
from .engine.step import Stepper
from .views import ImageSource, apply_photometric, build_dataset, collate

CPU_IMAGES = 16  # of a step on a CPU, at most: a few steps must fit into the time
SECONDS = 6.0  # of the measured steps; the one that runs then is finished
MOST_STEPS = 10


@dataclass(frozen=True)
class Trial:
    """What was measured: on ``device``, ``steps`` steps of ``images`` images each."""

    device: str
    gpu: bool
    steps: int
    images: int
    images_per_second: float
    memory: int  # bytes: the GPU's, or those of this process, at ``images``
    memory_an_image: float  # bytes; by the difference to half as many
    checkpoint: int  # bytes

    def memory_at(self, images: int) -> float:
        """Bytes at so many images a step: measured, or in a straight line from what was."""
        return self.memory + max(images - self.images, 0) * self.memory_an_image


def measure(cfg: CfgNode, source: ImageSource, share: int, seconds: float = SECONDS) -> Trial:
    """Run a few steps of ``cfg``, ``share`` images a step in this process, and keep nothing.

    The first step, of half the images, and the second one warm up; then as many as ``seconds``
    allow, at least one. Loading is part of it. Raises as a run does.
    """
    device = distributed.setup(cfg.DEVICE)
    images = share if device.type == "cuda" else min(share, CPU_IMAGES)
    cfg = settled(cfg, device)
    hasten(cfg, device)
    cfg.SOLVER.BATCH_SIZE = images
    cfg.BACKBONE.GROUP_SIZE = max(min(cfg.BACKBONE.GROUP_SIZE, images // 2), 2)
    method, optimizer = build_model(cfg, device)
    method.steps = method.steps_per_epoch = MOST_STEPS + 2
    limits, ahead = (cfg.SOLVER.CLIP_EACH, cfg.SOLVER.CLIP_NORM), runs_ahead(device)
    stepper = Stepper(method, method, optimizer, device, cfg.AMP, *limits, ahead=ahead)
    numbers = itertools.count()

    def step(batch) -> None:
        views = apply_photometric(batch, device, **normalization)
        stepper.launch([views], next(numbers), scaled_lr(cfg.SOLVER))

    order = BatchOrder(len(source), images, cfg.SEED, 0, MOST_STEPS + 2)
    dataset = build_dataset(cfg, source, range_of_run(cfg, source, None, device))
    normalization = normalization_of_run(cfg, dataset, None, device)
    pin = device.type == "cuda"
    loader = Loader(dataset, collate, source.path, options_of(cfg), pin, batch_sampler=order)
    with iter(loader) as batches:
        method.before_step(0)
        half = max(images // 2, 2)
        step(collate([dataset[0, index % len(source)] for index in range(half)]))
        before = _peak(device)
        step(next(batches))
        memory = _peak(device)
        began, done = _now(device), 0
        while done < MOST_STEPS and (not done or _now(device) - began < seconds):
            step(next(batches))
            done += 1
        took = _now(device) - began
    return Trial(
        device=_name(device),
        gpu=device.type == "cuda",
        steps=done,
        images=images,
        images_per_second=done * images / took,
        memory=memory,
        memory_an_image=(memory - before) / max(images - half, 1),
        checkpoint=stepper.state_bytes(),
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(device: torch.device) -> int:
    """The most memory so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"a CPU with {many(torch.get_num_threads(), 'thread')}"
