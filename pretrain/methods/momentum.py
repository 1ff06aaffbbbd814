"""Methods with a momentum encoder."""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from ..engine.momentum import ema_update_
from .base import Method


class MomentumMethod(Method):
    """A method some of whose modules have momentum copies, which follow before every step.

    A step finds the copies moved by the weights of the step before, as the official codes do that
    move them right before the keys are computed; at step 0 copies and sources are equal.
    """

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(momentum copy, its source) of everything that has one."""
        raise NotImplementedError

    def momentum(self, step: int) -> float:
        """m of the update before ``step``."""
        raise NotImplementedError

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        copies, sources = zip(*self.momentum_pairs(), strict=True)
        ema_update_(parameters(copies), parameters(sources), self.momentum(step))


def parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of several modules, in order."""
    return [parameter for module in modules for parameter in module.parameters()]


def momentum_copy(module: nn.Module) -> nn.Module:
    """A copy with the same weights that no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)
