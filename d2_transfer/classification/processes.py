"""What the processes of a trial tell each other; alone, the plain thing."""

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    """Wait until every process has come here."""
    if world() > 1:
        dist.barrier()


def any_process(flag: bool, device: torch.device) -> bool:
    """True in every process as soon as it is true in one."""
    if world() == 1:
        return flag
    vote = torch.tensor(int(flag), device=device)
    dist.all_reduce(vote, op=dist.ReduceOp.MAX)
    return bool(vote.item())


def total(counts: Tensor) -> Tensor:
    """The sum over the processes."""
    if world() > 1:
        dist.all_reduce(counts)
    return counts


def from_first(values: Tensor) -> None:
    """Overwrite a tensor with that of the first process."""
    if world() > 1:
        dist.broadcast(values, 0)
