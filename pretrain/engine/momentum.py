"""The momentum encoder's update."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def ema_update_(momentum_parameters: Iterable[Tensor], parameters: Iterable[Tensor], m: float):
    """θ_k ← m θ_k + (1 − m) θ_q, in place and for all tensors at once (MoCo, eq. 2).

    Only parameters move: the batch-norm buffers of the momentum encoder follow its own forward
    passes. Raises ValueError when the two sides differ in number.
    """
    keys, queries = list(momentum_parameters), list(parameters)
    if len(keys) != len(queries):
        raise ValueError(f"{len(keys)} momentum parameters for {len(queries)} parameters")
    if keys:
        torch._foreach_lerp_(keys, queries, 1.0 - m)


def cosine_momentum(base: float, step: int, total: int) -> float:
    """The momentum m at ``step`` (from 0) of ``total``: from ``base`` to 1 along a half cosine.

    m = 1 − (1 − base) (cos(π step / total) + 1) / 2 (BYOL, section 3.3; PixPro, PixPro.py).
    """
    return 1.0 - (1.0 - base) * (math.cos(math.pi * step / total) + 1.0) / 2.0
