"""The numbers of one training, and its schedule as a function of the step."""

import math
from dataclasses import asdict, dataclass

from fvcore.common.config import CfgNode

from densessl.core.schedules import cosine, stepped


@dataclass(frozen=True)
class Setting:
    """What a search may choose. ``base_lr``: at SOLVER.REFERENCE_BATCH images a step."""

    base_lr: float
    weight_decay: float
    head_lr_factor: float

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in asdict(self).items())


def configured(cfg: CfgNode) -> Setting:
    """The setting that SOLVER names."""
    solver = cfg.SOLVER
    return Setting(solver.BASE_LR, solver.WEIGHT_DECAY, solver.HEAD_LR_FACTOR)


class Schedule:
    """Steps, epochs and the learning rate of a training on ``images`` images.

    A step takes IMS_PER_BATCH images of an endless stream, so epochs need not end with a step.
    """

    def __init__(self, cfg: CfgNode, images: int, setting: Setting):
        solver = cfg.SOLVER
        self.solver, self.images, self.batch = solver, images, solver.IMS_PER_BATCH
        self.steps = solver.MAX_ITER or max(round(solver.EPOCHS * images / self.batch), 1)
        self.epochs = self.steps * self.batch / images
        self.peak = setting.base_lr * self.batch / solver.REFERENCE_BATCH
        self.period = cfg.TEST.EVAL_PERIOD

    def epoch(self, step: int) -> float:
        """Epochs done after ``step`` steps."""
        return step * self.batch / self.images

    def learning_rate(self, step: int) -> float:
        """Of the step after ``step`` steps."""
        epoch = self.epoch(step)
        if self.solver.SCHEDULE == "step":
            return stepped(self.peak, self.solver.GAMMA, self.solver.STEPS, epoch)
        done = step / self.steps
        if self.solver.PER == "epoch":
            done = min(math.floor(epoch) / max(round(self.epochs), 1), 1.0)
        return cosine(self.peak, 0.0, done)

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due after ``step`` steps: every EVAL_PERIOD, and at the end."""
        if step == self.steps:
            return True
        if step == 0 or not self.period:
            return False
        before, now = (math.floor(self.epoch(s) / self.period + 1e-9) for s in (step - 1, step))
        return now > before
