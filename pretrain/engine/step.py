"""One optimisation step, in which nothing that is not finite reaches the weights."""

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densessl.core import distributed

from ..methods import Method
from ..views import View
from .backup import Backup
from .gradients import clip_each_, clip_norm_

AMP = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class StepOutcome:
    """What a step gave: its named values as numbers, and whether it changed the model."""

    values: dict[str, float]
    applied: bool
    overflow: bool  # not applied only because the loss scale was too high: fp16 finding its range
    agreed: list[bool]  # for each question that was asked, whether any process said yes


class Launched:
    """A step that a device was asked for, and may not have done yet.

    Its values and votes come to the CPU in one copy, which on CUDA nothing waits for but
    :meth:`outcome`.
    """

    def __init__(self, outputs: dict[str, Tensor], votes: Tensor, scale: Tensor):
        scalars = [value.detach().double().reshape(()) for value in (*outputs.values(), scale)]
        numbers = torch.cat((torch.stack(scalars), votes.double()))
        self._names = list(outputs)
        self._numbers = numbers.to("cpu", non_blocking=True) if numbers.is_cuda else numbers
        self._copied = torch.cuda.Event() if numbers.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def outcome(self) -> StepOutcome:
        """What the step gave, when the device has done it."""
        if self._copied is not None:
            self._copied.synchronize()
        numbers = self._numbers.tolist()
        values = dict(zip(self._names, numbers, strict=False))
        scale, loss_is_bad, *agreed = numbers[len(values) :]
        applied = not loss_is_bad and math.isfinite(values["grad_norm"])
        overflow = not applied and not loss_is_bad and scale > 1
        return StepOutcome(values, applied, overflow, [bool(answer) for answer in agreed])


class Stepper:
    """Runs steps of ``method`` through ``model``, which is it or DDP around it.

    A step is: forward and backward (of each of its ``parts``), check, optimizer, then
    ``method.after_step`` (the keys enter the queue) and ``method.before_step`` of the next step
    (the momentum encoder follows). The momentum encoder thus moves right after the weights did,
    which is the same as right before the next forward pass, and a step that is not applied leaves
    everything as it was.

    With ``ahead`` the device itself finds out whether a step is to be applied, so that the host may
    ask for the next one meanwhile. The optimizer must then heed ``found_inf``, as PyTorch's fused
    ones do; whatever else a step moves is set back.
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
        ahead: bool = False,
    ):
        self.method, self.model, self.optimizer, self.device = method, model, optimizer, device
        self.dtype, self.clip_each, self.clip_norm = AMP[amp], clip_each, clip_norm
        self.parts = parts
        self.ahead = ahead
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Batch norm statistics move in the forward pass, before anything can be checked.
        moving = {name: b for name, b in method.named_buffers() if name not in method.ddp_ignored()}
        if self.ahead:  # and the rest after it: queues, centers, momentum encoders
            trained = {id(p) for p in self.parameters} - {id(p) for p in method.moved_weights()}
            moving |= dict(method.named_buffers())
            moving |= {n: p for n, p in method.named_parameters() if id(p) not in trained}
        self.backup = Backup(list(moving.values()))

    def state_bytes(self) -> int:
        """How many bytes a checkpoint takes: the model, and the optimizer's state of each weight
        (a momentum, or AdamW's two)."""
        each = 2 if isinstance(self.optimizer, torch.optim.AdamW) else 1
        trained = sum(p.numel() * p.element_size() for p in self.parameters)
        return each * trained + sum(
            t.numel() * t.element_size() for t in self.method.state_dict().values()
        )

    def launch(
        self,
        parts: Iterable[list[View]],
        step: int,
        lr: float,
        peak: float | None = None,
        weight_decay: float | None = None,
        asked: Sequence[bool] = (),
    ) -> Launched:
        """Ask for one step at learning rate ``lr``; every process must call this in step.

        ``parts``: the views of each part of the step, of equally many images; a part is asked for
        when that before it is computed, so that one generates them in the memory of one. The loss
        is the mean over the step.

        The processes vote once, while the gradients are computed: on the loss, and on whatever else
        is ``asked``. Gradients need no vote: their mean over the processes is the same in all.

        Groups with ``fixed_lr`` run at ``peak`` (default: at ``lr`` like the others); those that
        decay at all do by ``weight_decay`` (default: as before).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = peak if peak and group.get("fixed_lr") else lr
            if weight_decay is not None and group.get("adapt", True):
                group["weight_decay"] = weight_decay
        self.backup.keep()
        self.optimizer.zero_grad(set_to_none=True)
        outputs, vote = self._compute(parts, step, asked)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = outputs["grad_norm"] = gradient_norm(self.parameters)
        votes = vote.answers()
        launched = Launched(outputs, votes, self.scaler.scale(torch.ones_like(norm)))
        if self.ahead:
            bad = votes[0].bool() | ~norm.isfinite()
            self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self._update(step, norm)
            self.backup.restore_where(bad)
        elif launched.outcome().applied:
            self._update(step, norm)
        else:
            self.backup.restore()
            self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.is_enabled():
            self.scaler.update()
        return launched

    def _update(self, step: int, norm: Tensor) -> None:
        """All that follows the gradients, whose norm is ``norm``."""
        if self.clip_each:
            clip_each_(self.parameters, self.clip_each)
        if self.clip_norm:
            clip_norm_(self.parameters, norm, self.clip_norm)
        self.method.after_backward(step)
        self.optimizer.step()
        self.method.after_step(step)
        self.method.before_step(step + 1)

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


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """The L2 norm of all gradients together, a scalar; NaN or infinite when any entry is."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())


def _mean(outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each value over the parts of a step."""
    if len(outputs) == 1:
        return outputs[0]
    return {name: torch.stack([each[name] for each in outputs]).mean(0) for name in outputs[0]}
