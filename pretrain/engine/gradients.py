"""What is done with gradients between the backward pass and the optimizer."""

from collections.abc import Iterable

import torch
from torch import Tensor

from densessl.core.errors import InputError


@torch.no_grad()
def clip_norm_(parameters: Iterable[Tensor], norm: Tensor, limit: float) -> None:
    """Scale all gradients, whose common norm is the scalar ``norm``, to one of at most ``limit``.

    As ``torch.nn.utils.clip_grad_norm_``, without measuring once more; nothing waits for ``norm``.
    Raises InputError for a limit that is not positive.
    """
    if not limit > 0:
        raise InputError(f"clip_norm_(): the limit is {limit}; it must be positive")
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, (limit / norm.double()).clamp(max=1.0).float())


@torch.no_grad()
def clip_each_(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale every gradient to a norm of at most ``limit``, each by its own: min(1, limit/(|g|+ε)).

    Unlike the usual clipping, which scales all of them by their common norm. ε is 1e-6. Parameters
    without a gradient are left out; norms stay on the device, nothing waits for them.
    Raises InputError for a limit that is not positive. Source: DINO, utils.py (clip_gradients).
    """
    if not limit > 0:
        raise InputError(f"clip_each_(): the limit is {limit}; it must be positive")
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    factors = torch._foreach_norm(gradients)  # scalars
    torch._foreach_add_(factors, 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, limit)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(gradients, factors)
