"""Rows that count in a loss: picked on CPU, where work is saved; all of them elsewhere.

How many there are is known to the device only. The host would have to wait for that number, so on
CUDA every row takes part, and the loss itself gives those that do not count a share of 0.
"""

import torch


def counting(counts: torch.Tensor, *rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """``rows`` (tensors ``[M, ...]``) where ``counts`` (bool ``[M]``) is true; on CUDA, all."""
    if counts.device.type != "cpu":
        return rows
    found = counts.nonzero()[:, 0]
    return tuple(x.index_select(0, found) for x in rows)
