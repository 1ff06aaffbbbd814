"""The optimizers: SGD with momentum, AdamW, and LARS, which fits a layer's step to its weights."""

from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl.core.errors import unknown

OPTIMIZERS = ("sgd", "lars", "adamw")


def build_optimizer(solver: CfgNode, groups: list[dict], lr: float) -> torch.optim.Optimizer:
    """The optimizer that ``cfg.SOLVER`` asks for, over a method's groups of parameters.

    A group is ``{"params": [...]}`` with, where it differs from the others, ``weight_decay`` and
    ``adapt`` (False: LARS treats it as SGD does); further keys stay in ``param_groups`` as they
    are. On CUDA the whole step is a few kernels; on the CPU AdamW's is one pass over each weight.
    Raises InputError for an OPTIMIZER that does not exist.
    """
    common = {"lr": lr, "momentum": solver.MOMENTUM, "weight_decay": solver.WEIGHT_DECAY}
    devices = {weight.device.type for group in groups for weight in group["params"]}
    cuda = devices == {"cuda"}
    if solver.OPTIMIZER == "sgd":
        return FusedSGD(groups, **common) if cuda else torch.optim.SGD(groups, **common)
    if solver.OPTIMIZER == "lars":
        return LARS(groups, **common, trust=solver.LARS_TRUST)
    if solver.OPTIMIZER == "adamw":
        decay, fused = solver.WEIGHT_DECAY, devices in ({"cuda"}, {"cpu"}) or None
        return torch.optim.AdamW(groups, lr=lr, weight_decay=decay, fused=fused)
    raise unknown("optimizer", solver.OPTIMIZER, OPTIMIZERS, "SOLVER.OPTIMIZER")


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over ``state``, of this device or of another one.

    What is fused is this device's matter, not the checkpoint's, and fused kernels ask that a
    weight and its moments lie in memory alike, which a checkpoint may have otherwise (channels
    last). Raises ValueError where the state is not of these weights.
    """
    fused = optimizer.defaults.get("fused")
    groups = [
        {**group, "fused": fused} if "fused" in group else group for group in state["param_groups"]
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            alike = torch.is_tensor(value) and value.shape == weight.shape
            if alike and value.stride() != weight.stride():
                values[name] = torch.empty_like(weight).copy_(value)


class FusedSGD(torch.optim.SGD):
    """SGD in one kernel, also for weights that rest at first.

    PyTorch's takes all momenta to be there, or none. One that begins at 0 is the same: v ← 0 + g.
    """

    def __init__(self, params, **options):
        super().__init__(params, **options, fused=True)

    def step(self, closure=None):
        """One step on the gradients that are there; returns what ``closure`` returns."""
        for group in self.param_groups:
            for weight in group["params"] if group["momentum"] else ():
                state = self.state[weight]
                if weight.grad is not None and state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(weight)
        return super().step(closure)


class LARS(torch.optim.Optimizer):
    """SGD with momentum and a rate of its own for every tensor (You et al. 2017).

    With the gradient g of a tensor w and the weight decay β, as in PixPro's released code:

        g ← g + β w
        g ← g · η |w| / (|g| + ε)      η: ``trust``; not where |w| or |g| is 0
        v ← μ v + g;   w ← w − lr v    μ: ``momentum``

    Groups with ``adapt`` False leave the second line out, which makes them plain SGD. Norms stay
    on the device: a step waits for nothing. Where :attr:`found_inf` is a scalar that is not 0,
    nothing is changed, as PyTorch's fused optimizers have it.

        >>> weights, biases = [torch.ones(3, 2, requires_grad=True)], [torch.zeros(3)]
        >>> plain = {"params": biases, "weight_decay": 0.0, "adapt": False}
        >>> optimizer = LARS([{"params": weights}, plain], lr=4.0, weight_decay=1e-5)
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        eps: float = 1e-8,
    ):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"trust": trust, "eps": eps, "adapt": True})

    @torch.no_grad()
    def step(self, closure=None):
        """One step on the gradients that are there; returns what ``closure`` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if weights := [w for w in group["params"] if w.grad is not None]:
                self._move(weights, group)
        return loss

    def _move(self, weights: list[Tensor], group: dict) -> None:
        gradients = [w.grad for w in weights if w.grad is not None]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["adapt"]:
            ratios = trust_ratios(weights, gradients, group["trust"], group["eps"])
            gradients = list(torch._foreach_mul(gradients, ratios))
        velocities = [self._velocity(w) for w in weights]
        if self.found_inf is not None:
            torch._fused_sgd_(
                weights,
                gradients,
                velocities,
                weight_decay=0.0,
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=False,
                found_inf=self.found_inf,
            )
            return
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        torch._foreach_add_(weights, velocities, alpha=-group["lr"])

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:  # SGD's name for it
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]


def trust_ratios(
    weights: list[Tensor], gradients: list[Tensor], trust: float, eps: float
) -> list[Tensor]:
    """η |w| / (|g| + ε) of every tensor, as scalars on its device; 1 where |w| or |g| is 0."""
    w = torch.stack(torch._foreach_norm(weights))
    g = torch.stack(torch._foreach_norm(gradients))
    ratios = torch.where((w > 0) & (g > 0), trust * w / (g + eps), 1.0)
    return list(ratios.unbind())
