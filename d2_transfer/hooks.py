"""What a trial does around its steps: progress, seeds, stops, metrics."""

import os
from contextlib import suppress
from pathlib import Path

from densessl.core import waiting
from densessl.core.board import Board
from densessl.core.distributed import from_first
from densessl.core.errors import StoppedEarly
from densessl.core.lines import failed
from densessl.core.metrics import Metrics
from densessl.core.order import seed_of
from densessl.core.progress import Bar

from . import compat

compat.setup()
import torch  # noqa: E402
from detectron2.engine import HookBase, hooks  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from detectron2.utils.events import EventWriter, get_event_storage  # noqa: E402
from fvcore.nn.precise_bn import get_bn_modules  # noqa: E402


class TrialBar(HookBase):
    """The bar of a trial."""

    def __init__(self, trial: int):
        self.trial = trial
        self.bar: Bar | None = None

    def before_train(self):
        if comm.is_main_process():
            start, total = self.trainer.start_iter, self.trainer.max_iter
            self.bar = Bar(f"trial {self.trial}", total, min(start, total)).__enter__()

    def after_step(self):
        if self.bar:
            loss = get_event_storage().history("total_loss").latest()
            self.bar.advance(note=f"loss {loss:.3f}")

    def after_train(self):
        if self.bar:
            self.bar.__exit__(None, None, None)


class SeedEachStep(HookBase):
    """What torch draws in a step (which regions are sampled, dropout) depends on the step alone."""

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self):
        torch.manual_seed(seed_of(self.seed, self.trainer.iter, comm.get_rank()))


class AfterPreciseBN(HookBase):
    """Give every rank rank 0's statistics, as PreciseBN leaves each with its own
    (facebookresearch/detectron2#5398), and have it begin with the same images every time."""

    def __init__(self, precise_bn: hooks.PreciseBN, period: int):
        self.precise_bn, self.period = precise_bn, period

    def after_step(self):
        step = self.trainer.iter + 1
        if step != self.trainer.max_iter and not (self.period > 0 and step % self.period == 0):
            return
        self.precise_bn._data_iter = None
        for module in get_bn_modules(self.trainer.model):
            for buffer in module.buffers():
                from_first(buffer)


class SaveBeforeEvaluation(HookBase):
    """Save before each evaluation that comes between steps (every ``period``): one that fails or is
    stopped loses none of them. At the end Detectron2 itself saves first."""

    def __init__(self, period: int):
        self.period = period

    def after_step(self):
        step = self.trainer.iter + 1
        if step != self.trainer.max_iter and step % self.period == 0:
            self.trainer.checkpointer.save(f"model_{self.trainer.iter:07d}")


class EvaluateTrained(hooks.EvalHook):
    """Detectron2's evaluations, but for one of a model whose last step, or whose saving, failed."""

    def after_train(self):
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


class StopWhenAsked(HookBase):
    """Save and leave at the next step once any rank was asked to stop; the last step goes on."""

    def after_step(self):
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            return
        if not any(comm.all_gather(waiting.asked())):  # on the CPU: a GPU need not wait for it
            return
        done = self.trainer.iter + 1
        self.trainer.checkpointer.save(f"model_{self.trainer.iter:07d}")
        raise StoppedEarly(
            f"stopped at step {done} of {self.trainer.max_iter}, saved; the same command resumes"
        )


class RunMetrics(EventWriter):
    """One JSON object a line, of all trials together: the run's metrics.jsonl.

    What comes after the last step, the evaluation, has that one's number, ``steps``.
    """

    def __init__(self, path: str | os.PathLike, trial: int, steps: int):
        self.lines, self.trial, self.steps = Metrics(path), trial, steps
        self._last = -1

    def write(self):
        storage = get_event_storage()
        if storage.iter == self._last:
            return
        latest = {name: value for name, (value, at) in storage.latest().items() if at > self._last}
        self._last = storage.iter
        if latest:
            iteration = min(storage.iter + 1, self.steps)
            self.lines.log({"trial": self.trial, "iteration": iteration, **latest})

    def close(self):
        self.lines.close()


class BoardMetrics(EventWriter):
    """The same for TensorBoard, in the folder of the trial; in place of Detectron2's writer, which
    ends the trial on a full disk."""

    def __init__(self, folder: str | os.PathLike):
        self.board, self._last = Board(Path(folder)), -1

    def write(self):
        values: dict[int, dict[str, float]] = {}
        for name, (value, at) in get_event_storage().latest_with_smoothing_hint(20).items():
            if at > self._last:
                values.setdefault(at, {})[name] = float(value)
        for step in sorted(values):
            self.board.write(step, values[step])
            self._last = step

    def close(self):
        self.board.close()


class Forgiving(EventWriter):
    """A writer of Detectron2's whose full disk does not end the trial; ``file``: what it writes."""

    def __init__(self, writer: EventWriter, file: str | os.PathLike):
        self.writer, self.file = writer, file

    def write(self):
        try:
            self.writer.write()
        except OSError as error:
            failed(self.file, error)

    def close(self):
        with suppress(OSError):
            self.writer.close()
