"""Momentum encoders: copies of modules that follow them."""

import copy
import math
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..backbones import Backbone

PREFIX = "momentum_"
Copied = TypeVar("Copied", bound=nn.Module | Backbone)


def momentum_copy(module: Copied) -> Copied:
    """A copy with the same weights that no gradient reaches."""
    copied = copy.deepcopy(module)
    copied.requires_grad_(False)
    return copied


def momentum_update_(method: nn.Module, m: float) -> None:
    """θ_k ← m θ_k + (1 − m) θ_q: each module ``momentum_NAME`` of a method follows its ``NAME``.

    Before a step, by the weights that the step before has left, as the official codes do that
    move the copies right before the keys are computed; at step 0 both are equal.
    """
    copies = {name: module for name, module in method.named_children() if name.startswith(PREFIX)}
    sources = [getattr(method, name.removeprefix(PREFIX)) for name in copies]
    ema_update_(parameters(copies.values()), parameters(sources), m)


def parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of several modules, in order."""
    return [parameter for module in modules for parameter in module.parameters()]


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
