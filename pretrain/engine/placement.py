"""What a run stands on: a device and what it is good at, a compiler, other processes, the disk."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from fvcore.common.config import CfgNode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densessl.core import distributed, limits
from densessl.core.errors import EnvironmentLacks
from densessl.core.files import standing
from densessl.core.options import flat

from ..config import OF_DEVICE
from ..methods import Method
from ..options import FREE

AMPERE = (8, 0)  # compute capability: the first with bf16 and TF32

logger = logging.getLogger("densessl")


def settled(cfg: CfgNode, device: torch.device, saved: str = "", changed: Sequence[str] = ()):
    """``cfg`` with no option left at ``auto`` that the device decides; all must call it in step.

    What changes numbers stays as a run that is resumed has it: ``saved`` is its config, and
    ``changed`` names what it is to have otherwise. Processes decide alike, by the oldest GPU.
    """
    cfg, before = cfg.clone(), flat(yaml.safe_load(saved)) if saved else {}
    modern = not distributed.any_rank(capability(device) < AMPERE)
    for name, (on, off) in OF_DEVICE.items():
        if cfg[name] == "auto":
            kept = name in before and name not in FREE and name not in changed
            cfg[name] = before[name] if kept else on if modern else off
    return cfg


def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of a GPU; (0, 0) for any other device."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


def hasten(cfg: CfgNode, device: torch.device) -> None:
    """Switch on what makes a GPU faster at numbers that are good enough, and say so; a CPU keeps
    memory from step to step.

    Correspondences and losses are promised in float32, so matrix products have no TF32; with AMP
    the networks' are of half precision anyway.
    """
    if device.type != "cuda":
        limits.keep_freed_memory()
        return
    torch.backends.cudnn.benchmark = True  # the views of a run have one or two sizes
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False
    fused = "" if cfg.SOLVER.OPTIMIZER == "lars" else "fused "
    logger.info(
        "%s, compute capability %d.%d: AMP %s, channels last %s, cuDNN's fastest algorithms by "
        "trial, TF32 in float32 convolutions alone, %s%s, the next batch sent and the next "
        "step asked for during a step",
        torch.cuda.get_device_name(device),
        *capability(device),
        cfg.AMP,
        cfg.CHANNELS_LAST,
        fused,
        cfg.SOLVER.OPTIMIZER,
    )


def runs_ahead(device: torch.device) -> bool:
    """Whether the host takes the next batch, and asks for the next step, while the device computes
    a step: a GPU does. A CPU computes the step itself, and has nothing to send."""
    return device.type == "cuda"


def check_compiler(cfg: CfgNode, device: torch.device) -> None:
    """Raise EnvironmentLacks for COMPILE on a CPU without a C++ compiler."""
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++")
    if cfg.COMPILE and device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise EnvironmentLacks(
            "COMPILE needs a C++ compiler on the CPU, and there is none; install g++ "
            "(apt-get install g++), or leave COMPILE False"
        )


def distribute(method: Method, device: torch.device) -> nn.Module:
    """``method``, behind DDP when there are several processes.

    Queues are left out of DDP's broadcasts: every process enqueues the same gathered keys. Batch
    norm statistics follow the first process, as in the official runs. On the CPU a run that resumes
    is the undisturbed one bit for bit with any number of processes: DDP sorts its gradients into
    other buckets after its first step, which for three processes and more is another order of sums,
    so there it does that before the first.
    """
    if distributed.world_size() == 1:
        return method
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        method, list(method.ddp_ignored())
    )
    ids = [device.index] if device.type == "cuda" else None
    model = DistributedDataParallel(method, device_ids=ids, gradient_as_bucket_view=True)
    if device.type == "cpu":
        model.reducer._push_all_rebuilt_params()
        model.reducer._rebuild_buckets()
    return model


def check_disk(folder: Path, checkpoint_bytes: int, files: int) -> None:
    """Raise EnvironmentLacks when ``files`` checkpoints do not fit on the disk of ``folder``."""
    free, need = shutil.disk_usage(standing(folder)).free, checkpoint_bytes * files
    if free < need:
        raise EnvironmentLacks(
            f"{folder} has {free / 1e9:.2f} GB free, and the checkpoints of this run need "
            f"{need / 1e9:.2f} GB; make room, lower CHECKPOINT.KEEP, or give an OUTPUT_DIR on "
            "another disk"
        )
