"""One training, with evaluations, from wherever its checkpoint stands; bit for bit on the CPU."""

import contextlib
import math
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from densessl.core import checkpoint, waiting
from densessl.core.distributed import any_rank, barrier, from_first, rank, world_size
from densessl.core.errors import DenseSSLError, InputError, StoppedEarly
from densessl.core.loader import Batches
from densessl.core.metrics import Metrics
from densessl.core.order import seed_of
from densessl.core.progress import Bar

from .. import mixed_precision
from ..saved import CURE, Saved
from ..stops import evaluation
from ..trials import cut_back
from .accuracy import Counts, likeliest
from .images import Images
from .loading import STEP_STREAM, Order, evaluation_batches, training_batches
from .models import Model, loss_of
from .settings import Schedule, Setting

LOG_PERIOD = 20  # steps between lines of metrics.jsonl


class Diverged(DenseSSLError):
    """The loss is not finite any more."""


@torch.no_grad()
def evaluate(model: Model, test: Images, cfg: CfgNode) -> Counts:
    """The accuracy of ``model`` on all ``test`` images, which the processes share."""
    device = next(model.parameters()).device
    model.eval()
    for buffer in model.trained.buffers():  # as DDP does before its next step: each has its own
        from_first(buffer)
    counts = Counts(model.classifiers, len(test.classes), device)
    with evaluation_batches(test, range(rank(), len(test), world_size()), cfg) as batches:
        for images, labels in batches:
            logits = model(images.to(device, non_blocking=True))
            counts.add(likeliest(logits), labels.to(device))
    return counts.gathered()


class Fit:
    """Trains ``model`` on ``train`` and evaluates it on ``test``; every process runs one.

    ``folder`` holds its checkpoint, ``lines`` is the metrics.jsonl that it adds to, with ``trial``
    as the number in each line; ``title`` names it beside the bar. Batches, crops and all that torch
    draws are functions of SEED and the step.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: Model,
        setting: Setting,
        train: Images,
        test: Images,
        folder: Path,
        lines: Path,
        trial: int,
        title: str,
    ):
        self.cfg, self.model, self.setting, self.train, self.test = cfg, model, setting, train, test
        self.on_disk, self.lines = Saved(folder), Metrics(lines)
        self.trial, self.title = trial, title
        self.device = next(model.parameters()).device
        self.schedule = Schedule(cfg, len(train), setting)
        self.groups = model.parameter_groups()
        solver = cfg.SOLVER
        self.optimizer = torch.optim.SGD(
            [{"params": group["params"]} for group in self.groups],
            lr=self.schedule.peak,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=setting.weight_decay,
        )
        self.scaler = mixed_precision.loss_scale(cfg, self.device, model.scaled)
        self.step = self.evaluated = self.saved = 0  # steps done; those of the last evaluation, …
        self.best = 0.0  # top 1 of the reported classifier, over all evaluations

    def run(self) -> Counts:
        """Train what is left, then evaluate; raises what :meth:`train_to_the_end` does."""
        self.train_to_the_end()
        return self.evaluate()

    def train_to_the_end(self) -> None:
        """Train what is left, and save it, so that no failure of the evaluation can lose it.

        Raises StoppedEarly with all saved when any process was asked to stop, InputError for a
        checkpoint of other data, Diverged for a loss that is not finite.
        """
        self._restore()
        self.model.distribute(self.device)
        steps = self.schedule.steps
        if rank() == 0:
            cut_back(self.lines, self.trial, self.step, self.evaluated == self.step)
        bar = Bar(self.title, steps, self.step) if rank() == 0 else contextlib.nullcontext()
        with bar as shown, self._batches() as batches:
            for images, labels in batches:
                self._evaluate_if_due()
                self._save_if_due()
                loss = self._one_step(images, labels)
                self.step += 1
                if shown:
                    shown.advance(note=f"loss {loss:.3f}" if loss is not None else None)
                self._stop_if_asked()
        if self.saved < steps:
            self._save()

    def evaluate(self) -> Counts:
        """The accuracy of what was trained, on all test images."""
        with evaluation():
            return self._evaluate_if_due() or self._evaluate()

    # ---- a step ----

    def _batches(self) -> Batches:
        order = Order(
            images=len(self.train),
            batch_size=self.cfg.SOLVER.IMS_PER_BATCH,
            seed=self.cfg.SEED,
            first=self.step,
            last=self.schedule.steps,
            rank=rank(),
            world=world_size(),
        )
        return training_batches(self.train, self.cfg, order)

    def _one_step(self, images: torch.Tensor, labels: torch.Tensor) -> float | None:
        """Forward, backward, update; the loss of the reported classifier where a line is due."""
        lr = self.schedule.learning_rate(self.step)
        for group, ours in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = lr * ours["factor"]
        torch.manual_seed(seed_of(STEP_STREAM, self.cfg.SEED, self.step, rank()))
        self.model.train()
        images = images.to(self.device, non_blocking=True)
        losses = loss_of(self.model(images), labels.to(self.device, non_blocking=True))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses.sum()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if (self.step + 1) % LOG_PERIOD and self.step + 1 != self.schedule.steps:
            return None
        loss = losses[0].item()
        if any_rank(not math.isfinite(loss)):  # nobody waits for one that left
            raise Diverged(
                f"{self.title} stopped at step {self.step + 1}: the loss is {loss} with "
                f"{self.setting}; a lower SOLVER.BASE_LR may train"
            )
        self._log(self.step + 1, {"total_loss": loss, "lr": lr})
        return loss

    # ---- evaluations ----

    def _evaluate_if_due(self) -> Counts | None:
        if self.step == self.evaluated or not self.schedule.evaluates(self.step):
            return None
        counts = self._evaluate()
        self.evaluated = self.step
        self.best = max(self.best, counts.top1())
        epoch = round(self.schedule.epoch(self.step), 4)
        self._log(self.step, {"top1": counts.top1(), "epoch": epoch})
        return counts

    def _evaluate(self) -> Counts:
        return evaluate(self.model, self.test, self.cfg)

    # ---- where it stands ----

    def _restore(self) -> None:
        path = self.on_disk.whole()
        if path is None:
            return
        state = checkpoint.load(path, CURE)
        if state["images"][0] != self._images()[0]:
            raise InputError(
                f"{path} belongs to a trial on other training images; put those back, "
                "or give another -o"
            )
        self.model.trained.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.evaluated, self.best = state["step"], state["evaluated"], state["best"]
        self.saved = self.step
        if state["images"] != self._images() and self.evaluated:
            # the test images were fixed since: which epoch is best on these is not known
            self.evaluated, self.best = 0, float("nan")

    def _save(self) -> None:
        if rank() == 0:
            state = {
                "model": self.model.trained.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "images": self._images(),
                "step": self.step,
                "evaluated": self.evaluated,
                "best": self.best,
            }
            self.on_disk.save(self.step, state)
        self.saved = self.step
        barrier()

    def _save_if_due(self) -> None:
        due = self.step % self.cfg.SOLVER.CHECKPOINT_PERIOD == 0
        if due and self.step > self.saved:
            self._save()

    def _stop_if_asked(self) -> None:
        """Save and leave once any process was asked to stop; the last step goes on."""
        if not any_rank(waiting.asked()) or self.step >= self.schedule.steps:
            return
        self._save()
        raise StoppedEarly(
            f"stopped at step {self.step} of {self.schedule.steps}, saved; the same command resumes"
        )

    def _images(self) -> list[str]:
        if not hasattr(self, "_fingerprints"):
            self._fingerprints = [self.train.fingerprint(), self.test.fingerprint()]
        return self._fingerprints

    def _log(self, step: int, values: dict[str, float]) -> None:
        if rank() == 0:
            self.lines.log({"trial": self.trial, "iteration": step, **values})
