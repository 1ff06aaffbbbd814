"""AMP (SOLVER.AMP) on any device: what runs in half precision, and when the loss is scaled."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from . import compat
from .config import FLOAT16

compat.setup()
import torch  # noqa: E402
from detectron2.engine.train_loop import AMPTrainer  # noqa: E402


def autocast(cfg, device: torch.device) -> AbstractContextManager[Any]:
    """In which a forward pass runs on ``device``; without AMP one that does nothing."""
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED:
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, amp.DTYPE))


def loss_scale(cfg, device: torch.device, enabled: bool = True) -> torch.amp.GradScaler:
    """PyTorch's dynamic loss scale where gradients are of float16, else one that does nothing."""
    amp = cfg.SOLVER.AMP
    enabled = enabled and amp.ENABLED and amp.DTYPE == FLOAT16
    return torch.amp.GradScaler(device.type, enabled=enabled)


def stands_for(cfg) -> bool | str:
    """What of it features on a disk depend on; True for float16, once the only one."""
    amp = cfg.SOLVER.AMP
    return amp.DTYPE if amp.ENABLED and amp.DTYPE != FLOAT16 else amp.ENABLED


class MixedTrainer(AMPTrainer):
    """Detectron2's AMPTrainer on any device and in either precision; on CUDA and in float16 a step
    of it is that of Detectron2's, which knows nothing else."""

    def __init__(self, model, data_loader, optimizer):
        self._device = next(model.parameters()).device
        scale = torch.amp.GradScaler(self._device.type)
        super().__init__(model, data_loader, optimizer, grad_scaler=scale)

    def configure(self, cfg) -> None:
        """Take the precision of ``cfg``; before the first step, and before a state is loaded."""
        self._cfg = cfg
        self.grad_scaler = loss_scale(cfg, self._device)

    def run_step(self) -> None:
        assert self.model.training, "the model was left in evaluation mode"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        waited = time.perf_counter() - start
        with autocast(self._cfg, self._device):
            losses = self.model(data)
            if isinstance(losses, torch.Tensor):
                losses = {"total_loss": losses}
            total = sum(losses.values())
        self.optimizer.zero_grad()
        self.grad_scaler.scale(total).backward()
        self._write_metrics(losses, waited)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
