"""What one process of many sends in a step, recorded from the real step of the real model.

The model lies on the ``meta`` device: shapes, and no numbers. The process group is PyTorch's
``fake`` one, in which this process is one of many that are not there.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch.distributed as dist
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch._C._distributed_c10d import FakeWork, Work
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from densessl.pretrain import config
from densessl.pretrain.backbones import SyncBatchNorm
from densessl.pretrain.engine.memory import built, tensor_bytes
from densessl.pretrain.methods import Method


@dataclass
class Step:
    """Bytes of one process in a step, by what they are; and those of a checkpoint."""

    gradients: int = 0  # DDP all-reduces them
    statistics: int = 0  # running statistics of batch norm, which DDP sends from the first process
    gathered: int = 0  # what this process gives to all-gathers: keys, scores, negatives
    exchanged: int = 0  # ShuffleBN's all-to-alls: images there, outputs back
    reduced: int = 0  # other all-reduces: centres, the gradient of gathered projections
    norms_gathered: int = 0  # synchronised batch norm, forward: all-gathers
    norms_reduced: int = 0  # and backward: all-reduces
    norms: int = 0  # forward passes of synchronised batch norms
    checkpoint: dict[str, int] = field(default_factory=dict)  # by key

    def sent(self, processes: int) -> float:
        """Bytes that each of so many processes sends in a step, with ring algorithms.

        An all-reduce of n bytes sends 2 (R − 1) / R n, an all-gather to which each gives n sends
        (R − 1) n, an all-to-all (R − 1) / R n, a broadcast n.
        """
        others = processes - 1
        reduced = self.gradients + self.reduced + self.norms_reduced
        gathered = self.gathered + self.norms_gathered
        return (
            (2 * reduced + self.exchanged) * others / processes
            + gathered * others
            + self.statistics
        )


def record(cfg: CfgNode, processes: int, images: int) -> Step:
    """A step of the method that ``cfg`` describes, with ``images`` a process.

    Synchronised batch norms send on a GPU what torch's own does: forward the mean and the deviation
    of each channel and a count, backward two sums a channel; those of the CPU send as much.
    """
    cfg, step = cfg.clone(), Step()
    cfg.SOLVER.BATCH_SIZE = images * processes
    with _group(processes):
        config.validate(cfg, processes)
        method, optimizer, views = built(cfg, images)
        method.steps = 1000
        _count_norms(method, step)
        method.before_step(0)
        with _Recorder(step):
            method(views, 0)["loss"].backward()
            method.after_step(0)
        optimizer.step()
    trained = [p for p in method.parameters() if p.requires_grad]
    step.gradients = sum(map(tensor_bytes, trained))
    ignored = set(method.ddp_ignored())
    step.statistics = sum(
        tensor_bytes(b) for name, b in method.named_buffers() if name not in ignored
    )
    step.checkpoint = {
        "model": sum(map(tensor_bytes, method.state_dict().values())),
        "optimizer": sum(
            tensor_bytes(value)
            for state in optimizer.state_dict()["state"].values()
            for value in state.values()
            if isinstance(value, Tensor)
        ),
    }
    return step


class _Recorder(TorchDispatchMode):
    """Adds up the collectives, none of which is run."""

    def __init__(self, step: Step):
        super().__init__()
        self.step = step

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace != "c10d":
            return func(*args, **(kwargs or {}))
        name, done = func._schema.name.split("::")[1], Work.boxed(FakeWork())
        if name == "allreduce_":
            # One value a channel: a synchronised batch norm's on the CPU, counted apart.
            self.step.reduced += sum(tensor_bytes(x) for x in args[0] if x.ndim > 1)
            return args[0], done
        if name == "allgather_":
            self.step.gathered += sum(map(tensor_bytes, args[1]))
            return args[0], done
        if name == "alltoall_base_":
            self.step.exchanged += tensor_bytes(args[1])
            return done
        raise NotImplementedError(f"c10d::{name} has no rule here")


def _count_norms(method: Method, step: Step) -> None:
    def count(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        channels, size = inputs[0].shape[1], inputs[0].element_size()
        step.norms += 1
        step.norms_gathered += (2 * channels + 1) * size
        step.norms_reduced += 2 * channels * size * inputs[0].requires_grad

    for module in method.modules():
        if isinstance(module, SyncBatchNorm):
            module.register_forward_pre_hook(count)


@contextlib.contextmanager
def _group(processes: int) -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
