"""One optimisation step, in which nothing that is not finite reaches the weights."""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densessl.core import distributed

from ..methods import Method
from ..views import View
from .gradients import clip_each_, clip_norm_

AMP = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class StepOutcome:
    """What a step gave: its named values as numbers, and whether it changed the model."""

    values: dict[str, float]
    applied: bool
    overflow: bool  # not applied only because the loss scale was too high: fp16 finding its range
    agreed: list[bool]  # for each question that was asked, whether any process said yes


class Stepper:
    """Runs steps of ``method`` through ``model``, which is it or DDP around it.

    A step is: forward and backward (of each of its ``parts``), check, optimizer, then
    ``method.after_step`` (the keys enter the queue) and ``method.before_step`` of the next step
    (the momentum encoder follows). The momentum encoder thus moves right after the weights did,
    which is the same as right before the next forward pass, and a step that is not applied leaves
    everything as it was.
    """

    def __init__(
        self,
        method: Method,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        amp: str = "off",
        clip_each: float = 0.0,
        clip_norm: float = 0.0,
        parts: int = 1,
    ):
        self.method, self.model, self.optimizer, self.device = method, model, optimizer, device
        self.dtype, self.clip_each, self.clip_norm = AMP[amp], clip_each, clip_norm
        self.parts = parts
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Batch norm statistics move in the forward pass, before anything can be checked.
        moving = [b for name, b in method.named_buffers() if name not in method.ddp_ignored()]
        self._moving = _by_dtype(moving)
        self._kept = [[torch.empty_like(b) for b in buffers] for buffers in self._moving]

    def state_bytes(self) -> int:
        """How many bytes a checkpoint takes: the model, and the optimizer's state of each weight
        (a momentum, or AdamW's two)."""
        each = 2 if isinstance(self.optimizer, torch.optim.AdamW) else 1
        trained = sum(p.numel() * p.element_size() for p in self.parameters)
        return each * trained + sum(
            t.numel() * t.element_size() for t in self.method.state_dict().values()
        )

    def run(
        self,
        parts: Iterable[list[View]],
        step: int,
        lr: float,
        peak: float | None = None,
        weight_decay: float | None = None,
        asked: Sequence[bool] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> StepOutcome:
        """One step at learning rate ``lr``; every process must call this in step.

        ``parts``: the views of each part of the step, of equally many images; a part is asked for
        when that before it is computed, so that one generates them in the memory of one. The loss
        is the mean over the step.

        The processes vote once, while the gradients are computed: on the loss, and on whatever else
        is ``asked``. The host waits once, for the values and the votes together; before it waits,
        ``meanwhile()`` is called. Gradients need no vote: their mean over the processes is the same
        in all.

        Groups with ``fixed_lr`` run at ``peak`` (default: at ``lr`` like the others); those that
        decay at all do by ``weight_decay`` (default: as before).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = peak if peak and group.get("fixed_lr") else lr
            if weight_decay is not None and group.get("adapt", True):
                group["weight_decay"] = weight_decay
        self._copy(self._moving, self._kept)
        self.optimizer.zero_grad(set_to_none=True)
        outputs, vote = self._compute(parts, step, asked)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        outputs["grad_norm"] = gradient_norm(self.parameters)
        if meanwhile:
            meanwhile()
        values, (loss_is_bad, *agreed) = _read(outputs, vote.answers())
        if loss_is_bad or not math.isfinite(values["grad_norm"]):
            self._copy(self._kept, self._moving)
            self.optimizer.zero_grad(set_to_none=True)
            overflow = self.scaler.get_scale() > 1 and not loss_is_bad
            self.scaler.update()
            return StepOutcome(values, applied=False, overflow=overflow, agreed=agreed)
        if self.clip_each:
            clip_each_(self.parameters, self.clip_each)
        if self.clip_norm:
            clip_norm_(self.parameters, values["grad_norm"], self.clip_norm)
        self.method.after_backward(step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step(step)
        self.method.before_step(step + 1)
        return StepOutcome(values, applied=True, overflow=False, agreed=agreed)

    def _compute(
        self, parts: Iterable[list[View]], step: int, asked: Sequence[bool]
    ) -> tuple[dict[str, Tensor], distributed.Vote]:
        """The gradients of a step: forward and backward of its parts, each in the memory of one.

        Returns the mean of their values, and the vote. DDP sums gradients over the processes once,
        while those of the last part are computed.
        """
        outputs, kept = [], []
        for part, views in enumerate(parts):
            self.method.part, last = part, part == self.parts - 1
            with contextlib.nullcontext() if last else self._no_sync():
                with self._autocast():
                    values = self.model(views, step)
                outputs.append({name: value.detach() for name, value in values.items()})
                if last:
                    loss_bad = ~_mean(outputs)["loss"].isfinite()
                    vote = distributed.Vote([loss_bad, *asked], self.device)
                self.scaler.scale(values["loss"] / self.parts).backward()
            if self.parts > 1:
                kept.append(self.method.kept)
        if self.parts > 1:
            self.method.kept = {name: torch.cat([k[name] for k in kept]) for name in kept[0]}
        return _mean(outputs), vote

    def _no_sync(self):
        """The block in which DDP leaves gradients to their process."""
        return contextlib.nullcontext() if self.model is self.method else self.model.no_sync()

    def _autocast(self):
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @staticmethod
    @torch.no_grad()
    def _copy(source: list[list[Tensor]], target: list[list[Tensor]]) -> None:
        for to, by in zip(target, source, strict=True):
            torch._foreach_copy_(to, by)


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The L2 norm of all gradients together, a scalar; NaN or infinite when any entry is."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())


def _mean(outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each value over the parts of a step."""
    if len(outputs) == 1:
        return outputs[0]
    return {name: torch.stack([each[name] for each in outputs]).mean(0) for name in outputs[0]}


def _read(tensors: dict[str, Tensor], votes: Tensor) -> tuple[dict[str, float], list[bool]]:
    """Scalars and votes as Python's, in one transfer from the device: the only wait of a step."""
    scalars = [value.detach().double().reshape(()) for value in tensors.values()]
    numbers = torch.cat((torch.stack(scalars), votes.double())).tolist()
    values = dict(zip(tensors, numbers, strict=False))
    return values, [bool(number) for number in numbers[len(tensors) :]]


def _by_dtype(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Tensors in one list a dtype, as the foreach kernels need them to be fast."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())
