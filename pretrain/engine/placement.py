"""What a run stands on: a compiler, the other processes, the disk."""

import os
import shutil
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densessl.core import distributed
from densessl.core.errors import EnvironmentLacks
from densessl.core.files import standing

from ..methods import Method


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
