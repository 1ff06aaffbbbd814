"""Detectron2's own trainer, with what several trials need: exact resumption, stops, progress."""

import itertools
import json
import os
import re
import weakref
from pathlib import Path

from console import files
from console.errors import StoppedEarly
from console.progress import Bar
from d2_transfer import compat, convert, modeling  # noqa: F401  (modeling registers its heads)
from d2_transfer.evaluators import build_evaluator
from d2_transfer.stops import StopRequest
from d2_transfer.weights import check_loaded

compat.setup()
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from detectron2.checkpoint import DetectionCheckpointer  # noqa: E402
from detectron2.data import (  # noqa: E402
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import TrainingSampler  # noqa: E402
from detectron2.engine import HookBase, hooks  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from detectron2.utils.events import EventWriter, get_event_storage  # noqa: E402
from fvcore.nn.precise_bn import get_bn_modules  # noqa: E402


class Trainer(compat.default_trainer()):
    """Detectron2's DefaultTrainer for one trial.

    Adds: the order of samples is a function of SEED and goes on after a stop; checkpoints are
    atomic and hold the optimizer's state in both versions of Detectron2; the weights file is
    proved to have filled the backbone; after PreciseBN all ranks have rank 0's statistics
    (facebookresearch/detectron2#5398). ``lines``: the run's metrics.jsonl, ``trial``: its number.
    """

    def __init__(self, cfg, trial: int = 1, lines: str | os.PathLike | None = None):
        self.trial, self.lines = trial, lines
        self._steps_done = steps_done(cfg.OUTPUT_DIR)
        self._dicts: list[dict] | None = None
        super().__init__(cfg)

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint, else load MODEL.WEIGHTS and check that all of it took."""
        super().resume_or_load(resume)
        if self.start_iter == 0 and self.cfg.MODEL.WEIGHTS:
            check_loaded(self._bare_model(), self.cfg.MODEL.WEIGHTS)

    def train(self) -> dict:
        """Train, evaluate, and return Detectron2's results (on rank 0; elsewhere empty)."""
        super().train()
        return self._last_eval_results or {}

    def build_train_loader(self, cfg):
        if self._dicts is None:
            self._dicts = get_detection_dataset_dicts(
                cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            )
        done = self._steps_done * (cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())
        sampler = SampleOrder(len(self._dicts), cfg.SEED, done)
        return build_detection_train_loader(cfg, dataset=self._dicts, sampler=sampler)

    def build_hooks(self):
        self.checkpointer = AtomicCheckpointer(
            self._bare_model(), self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        built = super().build_hooks()
        for place, hook in enumerate(built):
            if isinstance(hook, hooks.PreciseBN):
                built.insert(place + 1, SameNormEverywhere(self.cfg.TEST.EVAL_PERIOD))
                break
        return [Progress(self.trial), *built, StopWhenAsked()]

    def build_writers(self):
        written = super().build_writers()
        return written + [RunMetrics(self.lines, self.trial)] if self.lines else written

    def build_evaluator(self, cfg, dataset_name):
        images = len(self.build_test_loader(cfg, dataset_name))
        return build_evaluator(dataset_name, str(Path(cfg.OUTPUT_DIR) / "evaluation"), images)

    def test(self, cfg, model, evaluators=None):
        if evaluators is None:
            evaluators = [self.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        return super().test(cfg, model, evaluators)

    def state_dict(self) -> dict:
        return super().state_dict() | {"_trainer": self._trainer.state_dict()}  # 0.5 leaves it out

    def load_state_dict(self, state: dict) -> None:
        inner = state["_trainer"]
        super().load_state_dict(state)
        self._trainer.load_state_dict(inner)

    def _bare_model(self):
        model = self._trainer.model
        return model.module if hasattr(model, "module") else model


class SampleOrder(TrainingSampler):
    """Detectron2's shuffled stream for a seed, from where a stopped run left it.

    ``done``: samples that this rank has had. (The batches that group images by their aspect ratio
    start empty again, so that a few images may change their batch.)
    """

    def __init__(self, size: int, seed: int, done: int = 0):
        super().__init__(size, shuffle=True, seed=max(seed, 0))
        self._done = done

    def __iter__(self):
        return itertools.islice(super().__iter__(), self._done, None)


class AtomicCheckpointer(DetectionCheckpointer):
    """Checkpoints that are whole or not there, one at a time, and never unpickled as code."""

    def save(self, name: str, **extra) -> None:
        if not (self.save_dir and self.save_to_disk):
            return
        held = {"model": self.model.state_dict(), **extra}
        held |= {key: each.state_dict() for key, each in self.checkpointables.items()}
        target = Path(self.save_dir) / f"{name}.pth"
        files.write_atomic(target, lambda stream: torch.save(held, stream))
        files.write_text(Path(self.save_dir) / "last_checkpoint", target.name)
        for older in Path(self.save_dir).glob("model_*.pth"):
            if older != target:
                older.unlink()

    def _load_file(self, filename: str) -> dict:
        if filename.endswith(".pkl"):
            return convert.read_weights(filename)
        return torch.load(filename, map_location="cpu", weights_only=True)


def steps_done(folder: str | os.PathLike) -> int:
    """How many steps the last checkpoint in a trial's folder has behind it; 0 without one.

    ``model_final.pth`` counts as 0: nothing is drawn from the data after it.
    """
    last = Path(folder) / "last_checkpoint"
    found = re.search(r"model_(\d+)", last.read_text()) if last.is_file() else None
    return int(found[1]) + 1 if found else 0


def keep_model_only(trainer: Trainer) -> None:
    """Leave a finished trial's ``model_final.pth`` without the optimizer's state: half the size."""
    target = Path(trainer.cfg.OUTPUT_DIR) / "model_final.pth"
    held = {"model": trainer.checkpointer.model.state_dict()}
    files.write_atomic(target, lambda stream: torch.save(held, stream))


class Progress(HookBase):
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


class SameNormEverywhere(HookBase):
    """After PreciseBN, give every rank rank 0's statistics: it leaves each with its own."""

    def __init__(self, period: int):
        self.period = period

    def after_step(self):
        step = self.trainer.iter + 1
        due = step == self.trainer.max_iter or (self.period > 0 and step % self.period == 0)
        if due and comm.get_world_size() > 1:
            for module in get_bn_modules(self.trainer.model):
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)


class StopWhenAsked(HookBase):
    """Save and leave at the next step once any rank was asked to stop; the last step goes on."""

    def after_step(self):
        if self.trainer.iter + 1 >= self.trainer.max_iter or not self._anyone_asked():
            return
        done = self.trainer.iter + 1
        self.trainer.checkpointer.save(f"model_{self.trainer.iter:07d}")
        raise StoppedEarly(
            f"stopped at step {done} of {self.trainer.max_iter}, saved; the same command goes on"
        )

    @staticmethod
    def _anyone_asked() -> bool:
        if comm.get_world_size() == 1:
            return StopRequest.asked()
        return any(comm.all_gather(StopRequest.asked()))


class RunMetrics(EventWriter):
    """One JSON object a line, of all trials together: the run's metrics.jsonl."""

    def __init__(self, path: str | os.PathLike, trial: int):
        self.path, self.trial = Path(path), trial
        self._last = -1

    def write(self):
        storage = get_event_storage()
        if storage.iter == self._last:
            return
        latest = {name: value for name, (value, at) in storage.latest().items() if at > self._last}
        self._last = storage.iter
        if latest:
            line = {"trial": self.trial, "iteration": storage.iter + 1, **latest}
            with open(self.path, "a") as stream:
                stream.write(json.dumps({k: _plain(v) for k, v in line.items()}) + "\n")


def _plain(value):
    if isinstance(value, int):
        return value
    return float(value) if value == value else None  # JSON has no NaN
