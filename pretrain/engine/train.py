"""The training run, from a config to ``backbone_final.pth``; read it top to bottom."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

from densessl.core import distributed, files, gpu_memory, limits, log, waiting, watchdog
from densessl.core.checkpoint import Writing, damage, load, remove, save, snapshot
from densessl.core.errors import InputError, Interrupted, StoppedEarly
from densessl.core.external import loaded
from densessl.core.form import NUMBER, fault
from densessl.core.loader import GRACE, Loader
from densessl.core.lock import in_use, locked
from densessl.core.progress import Bar
from densessl.core.stops import Stops
from densessl.core.units import many
from densessl.weight_files.images import AS_STORED

from .. import config
from ..contradictions import too_large_views
from ..methods.base import starting_weights
from ..views import (
    Batch,
    Sent,
    build_dataset,
    build_source,
    collate,
    photometric_views,
    send,
)
from ..views.normalization import COLOURS
from . import changes, resume
from .ahead import Ahead
from .announce import announce, remarks
from .build import build_model
from .checkpoint import FINAL_FORM, FOREIGN, STEP_FORM, Checkpoints, check, taken
from .facts import data_facts, start_facts
from .image_range import normalization_of_run, range_of_run, require_contrast
from .loading import check_machine, late, options_of
from .logs import Logs
from .memory import check_memory
from .nonfinite import Patience
from .optimizers import load_state
from .order import BatchOrder, global_batch, step_seed
from .placement import check_compiler, check_disk, distribute, hasten, runs_ahead, settled
from .schedules import learning_rate, scaled_lr, total_steps, weight_decay
from .step import Launched, Stepper
from .unreadable import Unreadable, gathered
from .watch import RunWatch

logger = logging.getLogger("densessl")


def train(
    cfg: CfgNode,
    after_step: Callable[[int], None] | None = None,
    change: Sequence[str] = (),
) -> Path:
    """Train ``cfg.METHOD`` on ``cfg.DATA`` and return the path of the final weights.

    Resumes by itself when ``cfg.OUTPUT_DIR`` has checkpoints, and says so when there is nothing
    left to do. ``after_step`` is called with the number of steps done. ``change`` names the options
    that a resumed run is to have otherwise than before (changes.py). Raises InputError for bad
    options or data, StoppedEarly after a signal with everything saved, EnvironmentLacks for a
    missing device or a full disk.
    """
    device = distributed.setup(cfg.DEVICE)
    try:
        config.check_folders(cfg)
        config.validate(cfg, distributed.world_size())
        check_compiler(cfg, device)
        folder = Path(cfg.OUTPUT_DIR)
        resume.check_writable(folder)
        log.setup(rank=distributed.rank())
        run = PretrainRun(cfg, folder, device, change)
        limit = watchdog.Limit(cfg.STALL_TIMEOUT, "STALL_TIMEOUT", folder / "log.txt")
        together = watchdog.watched(limit, distributed.peers())
        enough = limits.enough_memory(run.where)
        with Stops(speaks=distributed.is_main()) as stops, together, enough:
            if run.is_new():
                if change:
                    raise InputError(
                        f"--change {' '.join(change)}: OUTPUT_DIR {folder} has no checkpoint to "
                        "resume; leave --change out to start with these options"
                    )
                # There is nothing to save yet: a signal ends it.
                with waiting.wait(), watchdog.unhurried():
                    run.build(None)  # a run that is refused makes no folder
            resume.writable(folder)
            log.setup(folder, distributed.rank())
            alone = locked(folder / ".lock", in_use(f"OUTPUT_DIR {folder}", "OUTPUT_DIR"))
            memory = gpu_memory.enough(run.where, run.smaller)
            with alone if run.main else nullcontext(), memory:
                with waiting.wait(), watchdog.unhurried():
                    steps_left = run.prepare()
                if steps_left:
                    with run.logs:
                        run.loop(stops, after_step)
        return run.final
    finally:
        distributed.teardown()


@dataclass
class Asked:
    """A step that the device was asked for."""

    step: int
    launched: Launched
    unreadable: torch.Tensor  # indices of images of this process
    lr: float
    waited: float  # seconds, for its batch


class PretrainRun:
    """One run of pretraining in ``folder``, new or found there."""

    def __init__(
        self, cfg: CfgNode, folder: Path, device: torch.device, change: Sequence[str] = ()
    ):
        self.cfg, self.folder, self.device, self.change = cfg, folder, device, change
        self.changes: list[changes.Change] = []  # of its options so far
        self.changed = False  # in this session
        self.main = distributed.is_main()
        self.final = folder / resume.FINAL
        self.checkpoints = Checkpoints(folder / "checkpoints", cfg.CHECKPOINT.KEEP)
        self.writing = Writing()  # by the main process
        self.iteration = self.total = 0  # steps asked for, and all
        self.asked: deque[Asked] = deque()  # steps whose values were not read yet
        self.loss = ""  # of the last step that was read, for the progress bar
        self.stop_agreed = False  # whether any process was asked to stop
        self.looked_at = False  # the first batch of this session
        self.built = False

    def is_new(self) -> bool:
        """Whether nothing of it was saved so far."""
        return not (self.checkpoints.found() or self.final.exists())

    def build(self, found: tuple[Path, dict[str, Any]] | None) -> None:
        """Read the data and build the model of a run that begins, or of the one ``found``."""
        if self.cfg.BACKBONE.WEIGHTS and not found:
            starting_weights(self.cfg)  # wrong ones are refused before any work
        saved = found[1] if found else None
        if self.changed and "DATA.RANGE" in self.changes[-1]["options"]:
            saved = None  # which would bring the old range
        self.read_data(saved)
        check_memory(self.cfg, self.device, begun=bool(found))
        self.build_model(anew=not found)
        if self.main:
            waiting = self.cfg.CHECKPOINT.KEEP + 1 - len(self.checkpoints.found())
            check_disk(self.folder, self.stepper.state_bytes(), files=max(waiting, 1))
        self.built = not found

    def prepare(self) -> bool:
        """Make all that the steps need; False where none is left to do."""
        if self.main:
            self.checkpoints.clean()
        distributed.barrier()
        found = self.checkpoints.newest()
        if self.is_complete(found):
            return False
        if found or not self.built:
            self.build(found)
        announce(self.cfg, self.facts, self.source, self.method, self.device)
        if self.main and (self.changed or not found):
            for line in remarks(self.cfg, self.facts["images"], self.method):
                logger.warning("%s", line)
        self.restore(found)
        if self.main:
            heads = (f"# changed: {changes.describe(change)}\n" for change in self.changes)
            files.write_text(self.folder / "config.yaml", "".join(heads) + self.cfg.dump())
        return True

    def is_complete(self, found: tuple[Path, dict[str, Any]] | None) -> bool:
        """Whether the run found is this one and has nothing left to do; says so."""
        wrong = damage(self.final) if self.final.exists() else "it is not there"
        if found:
            path, state = found
            check(path, state, STEP_FORM)
        elif not self.final.exists():
            return False
        elif wrong:
            raise InputError(
                f"{self.folder} has no checkpoints, and its {self.final.name} is damaged "
                f"({wrong}); delete it to start from the beginning, or give another OUTPUT_DIR"
            )
        else:  # the checkpoints of a complete run were deleted to make room
            path, state = self.final, load(self.final, FOREIGN)
            check(path, state, FINAL_FORM)
        with taken(path):
            self.cfg = settled(self.cfg, self.device, state["config"], self.change)
            self.changes = changes.changes_of(path, state, self.cfg, self.change)
        self.changed = len(self.changes) > len(state["pretrain"].get("changes", []))
        if self.changed:
            changes.check_length(state, self.cfg)
            distributed.barrier()  # all have looked at the final weights
            self.set_aside(path, state)
            return False
        if state["iteration"] < state["pretrain"]["steps"]:
            return False
        if self.main and wrong:
            save(self.final, resume.final_state(state), checked=True)
        logger.info("this run is complete (%d steps): %s", state["iteration"], self.final)
        return True

    def set_aside(self, path: Path, state: dict[str, Any]) -> None:
        """Keep the weights of a complete run that is to have more steps, under another name."""
        if path == self.final:
            raise InputError(
                f"{self.folder} has no checkpoints left, so that its complete run cannot have more "
                "steps; give another OUTPUT_DIR, and these weights as BACKBONE.WEIGHTS to start "
                "from"
            )
        if self.main and self.final.exists() and state["iteration"] == state["pretrain"]["steps"]:
            aside = self.final.with_name(f"backbone_step_{state['iteration']:08d}.pth")
            save(aside, resume.final_state(state), checked=True)
            remove(self.final)
            logger.info("the weights of the run so far are %s", aside)

    # ---- what a run is made of ----

    def read_data(self, saved: dict[str, Any] | None) -> None:
        """The images and their facts; ``saved``: the checkpoint of a run that is resumed."""
        self.cfg = settled(self.cfg, self.device)  # that of a run that is resumed is so already
        cfg, solver = self.cfg, self.cfg.SOLVER
        check_machine(cfg)
        self.source = build_source(cfg)
        images = len(self.source)
        if images < solver.BATCH_SIZE:
            raise InputError(
                f"SOLVER.BATCH_SIZE is {solver.BATCH_SIZE}, but {cfg.DATA.PATH} has only {images} "
                f"images; give at most {images}"
            )
        self.epoch = images // solver.BATCH_SIZE  # steps of one
        self.total = total_steps(solver, self.epoch)
        self.bounds = range_of_run(cfg, self.source, saved, self.device)
        self.dataset = build_dataset(cfg, self.source, self.bounds)
        self.normalization = normalization_of_run(cfg, self.dataset, saved, self.device)
        self.facts = data_facts(cfg, self.source, self.total, self.epoch)
        if self.changes:
            self.facts["changes"] = self.changes
        if self.bounds:
            self.facts["range"] = list(self.bounds)
        if cfg.DATA.CHANNEL_FILES:
            self.facts["channel_files"] = cfg.DATA.CHANNEL_FILES
        self.watch = RunWatch(cfg, self.epoch, self.total, self.device, self.bounds)

    def build_model(self, anew: bool) -> None:
        """The method (a run that begins ``anew`` starts from BACKBONE.WEIGHTS), the optimizer."""
        cfg = self.cfg.clone()
        hasten(cfg, self.device)
        if cfg.BACKBONE.WEIGHTS and anew:
            self.facts |= start_facts(cfg.BACKBONE.WEIGHTS)
        elif not anew:
            cfg.BACKBONE.WEIGHTS = ""
        mean, std = (self.normalization[name] for name in ("mean", "std"))
        cfg.DATA.MEAN, cfg.DATA.STD = (",".join(map(repr, each)) for each in (mean, std))
        self.method, self.optimizer = build_model(cfg, self.device)
        self.method.steps, self.method.steps_per_epoch = self.total, self.epoch
        self.facts["own_files"] = loaded(
            f"{cfg.METHOD.NAME} {cfg.DENSE.CORRESPONDENCE} {cfg.BACKBONE.NAME} {cfg.VIEWS.RECIPE}"
        )
        model = distribute(self.method, self.device)
        self.stepper = Stepper(
            self.method,
            model,
            self.optimizer,
            self.device,
            cfg.AMP,
            cfg.SOLVER.CLIP_EACH,
            cfg.SOLVER.CLIP_NORM,
            cfg.SOLVER.ACCUMULATE,
            ahead=runs_ahead(self.device),
        )

    # ---- where a run stands ----

    def restore(self, found: tuple[Path, dict[str, Any]] | None) -> None:
        """Take the state of the checkpoint found, or that of a run that begins."""
        cfg, solver = self.cfg, self.cfg.SOLVER
        self.checkpoints.keep_every = cfg.CHECKPOINT.KEEP_EVERY * self.epoch
        limit = cfg.DATA.MAX_UNREADABLE
        self.unreadable = Unreadable(
            self.folder,
            self.source.name,
            limit,
            self.main,
            self.reason,
        )
        self.patience = Patience(
            self.folder,
            solver.MAX_SKIPPED,
            self.batch_names,
            self.main,
            self.advice,
        )
        if found:
            path, state = found
            resume.check_same_data(path, state, self.facts)
            self.facts |= {k: v for k, v in state["pretrain"].items() if k.startswith("start_")}
            if state["pretrain"].get("own_files", {}) != self.facts["own_files"]:
                logger.warning(
                    "%s: a file of your own has changed since, or lies elsewhere; the run goes on "
                    "with what it says now",
                    path,
                )
            self.iteration = state["iteration"]
            with taken(path):
                self.load(path, state)
                unreadable = [range(self.facts["images"])[n] for n in state["unreadable"]]
            self.unreadable.restore(self.still_unreadable(unreadable))
            logger.info("resuming after step %d, from %s", self.iteration, path)
            before, now = state["pretrain"]["processes"], self.facts["processes"]
            if before != now:
                logger.info("on %s now, %d then", many(now, "process"), before)
        self.saved = self.iteration
        options = config.flat(cfg)
        self.logs = Logs(self.folder, cfg.LOG.PERIOD, solver.BATCH_SIZE, self.iteration, options)
        if found:
            self.logs.load_state_dict(state["logs"])
            self.watch.load_state_dict(state.get("watch", {}))  # an older checkpoint has none
        else:
            self.method.before_step(0)

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Take over the tensors and counters; InputError where changed options do not fit them."""
        options = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        try:
            self.method.load_state_dict(state["model"])
            load_state(self.optimizer, state["optimizer"])
            self.check_optimizer(options)
        except (RuntimeError, ValueError) as error:
            if not self.changed:
                raise  # taken() says it
            raise InputError(
                f"--change {' '.join(self.change)}: {path} does not fit these options, {error}; "
                f"{changes.ANEW}"
            ) from None
        self.patience.load_state_dict(state["patience"])
        if not self.changed:
            self.stepper.scaler.load_state_dict(state["scaler"])
            return
        for group, now in zip(self.optimizer.param_groups, options, strict=True):
            group.update(now)  # a checkpoint brings the old momentum and decay
        if state["scaler"]:
            self.stepper.scaler.load_state_dict(state["scaler"])
        self.patience.in_a_row = 0
        logger.info("changed: %s", changes.describe(self.changes[-1]))
        if line := changes.consequence(state, self.cfg):
            logger.info(line)

    def check_optimizer(self, options: list[dict[str, Any]]) -> None:
        """ValueError unless the optimizer's state now fits the weights, as PyTorch takes any;
        ``options``: those of its groups as the run's own options make them."""
        for group, own in zip(self.optimizer.param_groups, options, strict=True):
            numbers = {key for key, value in own.items() if isinstance(value, float)}
            if wrong := fault(group, {f"{key}?": NUMBER for key in numbers}):
                raise ValueError(f"of the optimizer {wrong}")
        for weight, state in self.optimizer.state.items():
            for name, value in state.items():
                if torch.is_tensor(value) and value.shape not in (weight.shape, ()):
                    raise ValueError(f"{name} of the optimizer has the shape {list(value.shape)}")

    def advice(self) -> str:
        """What to do about a run that diverged."""
        found = self.checkpoints.found()
        step = found[-1][0] if found else None
        return changes.advice(self.folder, self.cfg, step, distributed.world_size())

    def state(self) -> dict[str, Any]:
        """Everything that a run resuming from here needs; all processes must call it in step."""
        fpn = self.method.fpn_state()
        order = "RGB" if self.cfg.DATA.CHANNELS == COLOURS else AS_STORED
        return {
            "model": self.method.state_dict(),
            "backbone": self.method.backbone_state(),
            **({} if fpn is None else {"fpn": fpn}),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "iteration": self.iteration,
            "config": self.cfg.dump(),
            "method": self.cfg.METHOD.NAME,
            "normalization": self.normalization | {"channel_order": order},
            "range": list(self.bounds) if self.bounds else None,
            "pretrain": self.facts,
            "unreadable": sorted(self.unreadable.indices),
            "patience": self.patience.state_dict(),
            "logs": self.logs.state_dict(),
            "watch": self.watch.state_dict(),
        }

    def save(self) -> None:
        """Begin to write a checkpoint of the steps done, beside those that follow."""
        self.read()
        if self.main:
            self.writing.wait()
            self.logs.sync()  # first the log: a checkpoint must never be ahead of it
        state = self.state()
        if self.main:
            self.writing.begin(partial(self.write, snapshot(state)))
        self.saved = self.iteration

    def write(self, state: dict[str, Any]) -> None:
        """Bring a state to the disk; of the last step the weights for others, too."""
        self.checkpoints.save(state["iteration"], state)
        if state["iteration"] == self.total:
            save(self.final, resume.final_state(state), checked=True)

    def written(self) -> None:
        """Wait until all is on the disk: nobody leaves, and so ends the others, before that."""
        if self.main:
            self.writing.wait()
        distributed.barrier()

    # ---- the steps ----

    def loop(self, stops: Stops, after_step: Callable[[int], None] | None) -> None:
        """All steps from where the run stands, with checkpoints; StoppedEarly when asked to."""
        cfg = self.cfg
        if self.iteration == 0:
            self.logs.begin(self.watch.start(self.method))
        order = BatchOrder(
            images=self.facts["images"],
            batch_size=cfg.SOLVER.BATCH_SIZE,
            seed=cfg.SEED,
            first=self.iteration,
            last=self.total,
            rank=distributed.rank(),
            world=distributed.world_size(),
        )
        loader = Loader(
            self.dataset,
            collate,
            self.source.path,
            options_of(cfg),
            pin=self.device.type == "cuda",
            batch_sampler=order,
        )
        progress = Bar("pretrain", self.total, self.iteration) if self.main else nullcontext()
        with self.writing, iter(loader) as loaded, progress as bar:
            batches = Ahead(loaded, self.send, self.device)
            while self.iteration < self.total:
                try:
                    batch, sent = next(batches)
                except Interrupted:
                    if distributed.world_size() > 1:
                        raise  # the others are in the middle of a step
                    raise self.stopped() from None
                compiles = self.cfg.COMPILE and not self.looked_at
                with watchdog.unhurried() if compiles else nullcontext():
                    self.ask(batch, sent, batches.waited, stop=stops.requested is not None)
                    if self.stepper.ahead:  # the device is at work, and the host is not
                        batches.fetch()
                    later = self.stepper.ahead and not self.needs_weights()
                    self.read(but=1 if later else 0)
                watchdog.beat()
                if bar:
                    bar.advance(note=self.loss)
                if after_step:
                    after_step(self.iteration)
                self.writing.check()
                if distributed.world_size() == 1:
                    self.stop_agreed = stops.requested is not None  # also one that came meanwhile
                if self.stop_agreed or self.is_due():
                    self.save()
                if self.stop_agreed and self.iteration < self.total:
                    raise self.stopped()
            self.written()
        if self.main:
            if summary := self.unreadable.summary():
                logger.warning("%s", summary)
            logger.info("done: %s", self.final)

    def send(self, batch: Batch) -> list[Sent]:
        """Bring the parts of a batch to the device."""
        parts = batch.parts(self.cfg.SOLVER.ACCUMULATE)
        return [send(part, self.device, **self.normalization) for part in parts]

    def ask(self, batch: Batch, sent: list[Sent], waited: float, stop: bool) -> None:
        """Ask the device for the next step.

        ``sent``: the parts of the batch; ``waited``: seconds, for it; ``stop``: whether this
        process is asked to.
        """
        step, solver = self.iteration, self.cfg.SOLVER
        if not self.looked_at:
            require_contrast(batch, self.source, self.bounds)
            if self.main and not step:
                for line in too_large_views(self.cfg, float(batch.size.amin(1).median())):
                    logger.warning("%s", line)
            self.looked_at = True
        lr = learning_rate(solver, step, self.epoch)
        torch.manual_seed(step_seed(self.cfg.SEED, step, distributed.rank()))  # of dropped paths
        launched = self.stepper.launch(
            map(photometric_views, sent),
            step,
            lr,
            peak=scaled_lr(solver),
            weight_decay=weight_decay(solver, step, self.epoch),
            asked=(stop, len(batch.unreadable) > 0),
        )
        self.asked.append(Asked(step, launched, batch.unreadable, lr, waited))
        self.iteration += 1

    def read(self, but: int = 0) -> None:
        """Take note of the steps asked for, ``but`` the last of them; all must call it in step."""
        while len(self.asked) > but:
            self.note(self.asked.popleft())

    def note(self, asked: Asked) -> None:
        """Wait for a step, and log it."""
        outcome, done = asked.launched.outcome(), asked.step + 1
        stop, some_unreadable = outcome.agreed
        self.loss, self.stop_agreed = f"loss {outcome.values['loss']:.4f}", self.stop_agreed or stop
        self.patience.count(asked.step, outcome)
        if some_unreadable:
            self.unreadable.add(gathered(asked.unreadable, self.device))
        size = self.cfg.SOLVER.BATCH_SIZE
        seen = min(done * size, self.facts["images"])
        self.unreadable.check(seen, at_most=min(self.total, self.epoch) * size)
        facts = {
            "epoch": round(done / self.epoch, 4),
            "lr": asked.lr,
            "skipped": self.patience.skipped,
            "unreadable": len(self.unreadable),
        }
        means = dict(outcome.values) if outcome.applied else {}
        if self.watch.measures(done):
            self.writing.wait()  # its loaders are forked, which no thread should be at work for
        means |= self.watch.step(done, outcome, self.method)
        self.logs.step(done, means, facts | self.watch.facts(), asked.waited, done == self.total)

    def needs_weights(self) -> bool:
        """Whether something is done with the weights after the steps asked for."""
        return self.is_due() or self.watch.measures(self.iteration)

    def where(self) -> str:
        """The step that is being done, for messages."""
        if not self.total:
            return "before the first step"
        return f"step {self.iteration + 1} of {self.total}"

    def smaller(self) -> list[str]:
        """What would need less memory on the GPU; a run with checkpoints keeps its batch."""
        begun = bool(self.checkpoints.found())
        world, batch = distributed.world_size(), self.cfg.SOLVER.BATCH_SIZE
        more = f"more than {many(world, 'process')}"
        fixes = [f"{more}, each on a GPU of its own (they share the batch)"]
        if self.cfg.AMP == "off":
            fixes.append(f"AMP bf16{' --change AMP' if begun else ''} (activations take half)")
        finer = self.cfg.clone()
        finer.SOLVER.ACCUMULATE = parts = 2 * finer.SOLVER.ACCUMULATE
        with suppress(InputError):  # the batch has no such parts, or the method takes none
            config.validate(finer, world)
            change = " --change SOLVER.ACCUMULATE" if begun else ""
            fixes.append(f"SOLVER.ACCUMULATE {parts}{change} (the same batch, in so many parts)")
        if batch > world:
            anew = " and another OUTPUT_DIR" if begun else ""
            fixes.append(f"SOLVER.BATCH_SIZE {batch // 2}{anew} (the rate follows)")
        return fixes

    def stopped(self) -> StoppedEarly:
        """Save what is not saved yet, and say where the run stands."""
        if self.saved != self.iteration:
            self.save()
        self.written()
        return StoppedEarly(
            f"stopped after step {self.iteration} of {self.total}, all saved in {self.folder}; run "
            "the same command to resume"
        )

    def is_due(self) -> bool:
        """Whether a checkpoint is due after the steps done."""
        chosen = self.cfg.CHECKPOINT
        period = chosen.STEPS or max(round(chosen.PERIOD * self.epoch), 1)
        for_good = self.checkpoints.keep_every
        return (
            self.iteration % period == 0
            or self.iteration == self.total
            or bool(for_good and self.iteration % for_good == 0)
        )

    def still_unreadable(self, indices: list[int]) -> list[int]:
        """Those of the images that a checkpoint lists which were not repaired since."""
        still = [index for index in indices if self.cannot_read(index)]
        if len(still) < len(indices):
            logger.info("%d images can be read again", len(indices) - len(still))
        return still

    def cannot_read(self, index: int) -> bool:
        with self.wait_for(index):
            return index in self.dataset[0, index].unreadable

    def reason(self, index: int) -> str:
        """Why an image cannot be read."""
        with self.wait_for(index):
            return self.dataset.reason(index)

    def wait_for(self, index: int) -> AbstractContextManager:
        """The block that reads an image in this process."""
        error = late(self.source.path(index), self.cfg)
        return waiting.wait(self.cfg.DATA.TIMEOUT, lambda: error, GRACE)

    def batch_names(self, step: int) -> list[str]:
        """The files of the global batch of a step."""
        images, size = self.facts["images"], self.cfg.SOLVER.BATCH_SIZE
        batch = global_batch(self.cfg.SEED, step, images, size)
        return [self.source.name(index) for index in batch]
