"""What a run trains: the method on its device, and the optimizer of its parameters."""

import torch
from fvcore.common.config import CfgNode

from ..backbones.norm import slow_
from ..methods import Method, build_method
from .optimizers import build_optimizer
from .schedules import scaled_lr


def build_model(cfg: CfgNode, device: torch.device) -> tuple[Method, torch.optim.Optimizer]:
    """The method that ``cfg`` names, with the initial weights of ``cfg.SEED``, and its optimizer.

    Raises InputError as :func:`densessl.pretrain.methods.build_method`.
    """
    torch.manual_seed(cfg.SEED)  # each step has a seed of its own
    layout = torch.channels_last if cfg.CHANNELS_LAST == "on" else torch.preserve_format
    method = build_method(cfg).to(device).train()
    slow_(method, cfg.SOLVER.ACCUMULATE)
    method.to(memory_format=layout)  # type: ignore[call-overload]  # torch's own types lack it
    if cfg.COMPILE:
        method.compile_backbones()
    groups = method.parameter_groups(cfg)
    return method, build_optimizer(cfg.SOLVER, groups, scaled_lr(cfg.SOLVER))
