"""Everything that passes between processes: the one file with collectives.

Global batch order: of a global batch, process r of R holds the samples r, r + R, r + 2R, …
Every function also works in a single process without a group, where it does the plain thing.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import EnvironmentLacks, InputError
from .peers import Peers

_T = TypeVar("_T")
_talks = 0  # calls of peers() so far: each has keys of its own


def setup(device: str = "auto", init_method: str = "env://", timeout: float = 1800) -> torch.device:
    """Join the processes that torchrun started (if it did); this process's device.

    ``device``: auto, cpu or cuda. gloo connects CPUs, NCCL GPUs; ``timeout`` in seconds bounds
    every collective. Raises EnvironmentLacks where a GPU is asked for and there is none, and
    InputError for more processes on a machine than GPUs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"DEVICE is '{device}'; allowed: auto, cpu, cuda")
    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and not gpus:
        raise EnvironmentLacks("DEVICE is cuda, but torch sees no GPU; run with DEVICE cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if gpus and local_rank >= gpus:
        raise InputError(
            f"process {local_rank} of this machine has no GPU of its own ({gpus} here); "
            f"start at most {gpus} processes a machine, or run with DEVICE cpu"
        )
    chosen = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(chosen)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1 and not dist.is_initialized():
        try:
            dist.init_process_group(
                "nccl" if gpus else "gloo",
                init_method=init_method,
                rank=int(os.environ["RANK"]),
                world_size=processes,
                timeout=timedelta(seconds=timeout),
                device_id=chosen if gpus else None,
            )
        except dist.DistNetworkError as error:
            host, port = (os.environ.get(f"MASTER_{name}") for name in ("ADDR", "PORT"))
            raise EnvironmentLacks(
                f"the processes cannot meet at {host}:{port} ({str(error).splitlines()[0]}); "
                "MASTER_PORT must be a free port of MASTER_ADDR, which all reach. 'torchrun "
                "--standalone' chooses one"
            ) from None
    return chosen


def teardown() -> None:
    """Leave the group; nothing happens where there is none."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def peers() -> Peers:
    """What this process knows of the others outside of collectives; all must call it in step."""
    global _talks
    if world_size() == 1:
        return Peers()
    _talks += 1
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun keeps the store
    store = dist.PrefixStore(f"peers/{attempt}/{_talks}", dist.TCPStore(*place, is_master=False))
    return Peers(rank(), world_size(), store)


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """True in process 0, which writes the files and the log."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        dist.barrier()


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """``x [B, …]`` of every process, ``[R·B, …]`` in global batch order; no gradient."""
    if world_size() == 1:
        return x
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.stack(parts, dim=1).flatten(0, 1)


def gather_with_gradient(x: Tensor) -> Tensor:
    """As :func:`gather`; the gradient of a process's part is the sum of what all give it."""
    return x if world_size() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return gather(x)

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return mine(total)


def mine(x: Tensor) -> Tensor:
    """This process's samples of a global batch ``x [R·B, …]``."""
    return x[rank() :: world_size()]


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of ``x`` over the processes, with gradient (the gradient is summed as well)."""
    return x if world_size() == 1 else _SumOverProcesses.apply(x)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def all_reduce_mean(values: dict[str, float]) -> dict[str, float]:
    """Each value's mean over the processes; all bring the same names in the same order."""
    if world_size() == 1 or not values:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64, device=_device())
    dist.all_reduce(total)
    return dict(zip(values, (total / world_size()).tolist(), strict=True))


def any_rank(flag: bool) -> bool:
    """True in every process as soon as it is true in one (how they agree to stop)."""
    if world_size() == 1:
        return bool(flag)
    vote = torch.tensor(int(flag), device=_device())
    dist.all_reduce(vote, op=dist.ReduceOp.MAX)
    return bool(vote.item())


class Vote:
    """Several questions to all processes, answered while this one computes.

    A flag is a bool, or a scalar tensor of one on ``device``, which nobody waits for.
    """

    def __init__(self, flags: Sequence[bool | Tensor], device: torch.device):
        own = [
            flag if isinstance(flag, Tensor) else torch.full((), flag, device=device)
            for flag in flags
        ]
        self._votes = torch.stack(own).int()
        self._work = None
        if world_size() > 1:
            self._work = dist.all_reduce(self._votes, op=dist.ReduceOp.MAX, async_op=True)

    def answers(self) -> Tensor:
        """``[flags]``, on the device: 1 where any process said yes. All must call it in step."""
        if self._work is not None:
            self._work.wait()  # on CUDA the stream waits, not the process
        return self._votes


def from_first(x: Tensor) -> None:
    """Overwrite ``x`` with that of process 0."""
    if world_size() > 1:
        dist.broadcast(x, 0)


def from_first_each(values: Sequence[_T]) -> _T:
    """Of what process 0 has for each process, anything that pickles, this one's; what the others
    give is not looked at. It passes between CPUs."""
    if world_size() == 1:
        return values[0]
    group = dist.new_group(backend="gloo")
    received: list[_T | None] = [None]
    dist.scatter_object_list(received, list(values) if is_main() else None, src=0, group=group)
    dist.destroy_process_group(group)
    return cast(_T, received[0])


@torch.no_grad()
def shuffle(x: Tensor, permutation: Tensor) -> Tensor:
    """This process's samples of the globally permuted batch (ShuffleBN, MoCo section 3.3).

    ``x [B, …]`` holds this process's samples; ``permutation`` is a permutation of all R·B samples,
    on the CPU and the same in every process. The result ``[B, …]`` holds the samples
    ``permutation[r::R]`` of the global batch. Only the samples that move are sent. No gradient.
    """
    processes, me = world_size(), rank()
    if len(permutation) != processes * len(x):
        raise ValueError(f"{len(permutation)} permuted samples for {processes} x {len(x)}")
    if processes == 1:
        return x[permutation.to(x.device, non_blocking=True)]
    source, place = permutation % processes, permutation // processes  # where sample g lies
    wanted = [place[r::processes][source[r::processes] == me] for r in range(processes)]
    mine = source[me::processes]
    received = x.new_empty(x.shape)
    dist.all_to_all_single(
        received,
        x[torch.cat(wanted).to(x.device, non_blocking=True)].contiguous(),
        output_split_sizes=torch.bincount(mine, minlength=processes).tolist(),
        input_split_sizes=[len(rows) for rows in wanted],
    )
    out = torch.empty_like(received)
    out[torch.argsort(mine, stable=True).to(x.device, non_blocking=True)] = received
    return out


def unshuffle(x: Tensor, permutation: Tensor) -> Tensor:
    """The inverse of :func:`shuffle`: every sample back in its process and place."""
    return shuffle(x, torch.argsort(permutation))


def _device() -> torch.device:
    """Where this group's collectives take their tensors from."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
