"""k trials of one protocol: each with its seed, resumable, recorded, then averaged."""

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from densessl.annotations import split
from densessl.core import files, limits, log
from densessl.core.errors import DenseSSLError, EnvironmentLacks, InputError, Stalled, StoppedEarly
from densessl.core.lock import in_use, locked
from densessl.core.metrics import Metrics
from densessl.core.progress import duration

from . import compat, config_files, datasets, image_range, results, user_code
from .datasets import custom, parted
from .datasets.custom import Custom
from .launch import Rendezvous
from .limits import check_machine, smaller
from .run import (
    Run,
    begin_folder,
    begin_trial,
    check_folder,
    check_trials,
    finished,
)
from .saved import CURE, FINAL, Saved
from .stops import stop_after, stoppable
from .summary import summary
from .trained import measure

logger = logging.getLogger("densessl")


def run_trials(
    run: Run, cfg, trials: int, seed: int, work: Callable | None = None
) -> tuple[list[results.Record], dict[int, str]]:
    """Do the trials that are not finished, with seeds ``seed``, ``seed + 1``, ….

    One that is trained, and whose evaluation failed or was cut off, is evaluated alone.

    ``work(run, trial)`` trains and evaluates one in each of its processes and writes the record:
    :func:`run_trial` unless named. ``cfg`` has SEED, OUTPUT_DIR, MODEL.WEIGHTS and MODEL.DEVICE.

    Returns all records, and of each trial that failed its error, which is logged and does not keep
    the others from running. Writes ``summary.json`` (mean, standard deviation with n−1,
    n) over those that are finished. With ``run.only`` it does that trial alone, and other processes
    may do the others meanwhile. Raises InputError when the folder belongs to another run or another
    process is busy with the trial, StoppedEarly (everything saved) when a signal asks to stop. On
    several machines the first one decides and writes; the others return no records.
    """
    records: list[results.Record] = []  # of all finished trials, where this machine is the first
    failed: dict[int, str] = {}
    check_machine(cfg, run.processes, run.gpus)
    with Rendezvous(run.machines, run.limit) as rendezvous:
        if run.machines.first:
            check_folder(run, cfg)
            check_trials(run, cfg, trials, seed)
            begin_folder(run, cfg)
        began, done_now = time.monotonic(), 0
        for trial in [run.only] if run.only else range(1, trials + 1):
            record = finished(run, cfg, trial, seed + trial - 1) if run.machines.first else None
            if rendezvous.agree("finished" if record else "to do") == "finished":
                if record:
                    Saved(run.trial_folder(trial)).finish()  # unless a kill came before it did
                    logger.info("trial %d of %d is finished (seed %d)", trial, trials, record.seed)
                continue
            with _held(run, trial):
                if run.machines.first:
                    begin_trial(run, cfg, trial, seed + trial - 1)
                rendezvous.agree("begun")
                problem = _one_trial(rendezvous, work or run_trial, run, trial, cfg)
            if problem:
                failed[trial] = problem
            done_now += 1
            each = (time.monotonic() - began) / done_now
            more = 0 if run.only else trials - trial
            left = f"; about {duration(each * more)} left" if more else ""
            logger.info("trial %d of %d took %s%s", trial, trials, duration(each), left)
    if run.machines.first:
        records = _summarise(run, cfg, trials, seed)
    return records, failed


def _summarise(run: Run, cfg, trials: int, seed: int) -> list[results.Record]:
    """Write ``summary.json`` of the finished trials, and return their records."""
    written: list[results.Record] = []
    while True:  # until no trial of another process came to its end while this wrote
        all_trials = (finished(run, cfg, trial, seed + trial - 1) for trial in range(1, trials + 1))
        records = [record for record in all_trials if record]
        if records == written:
            return records
        files.write_json(run.folder / "summary.json", summary(run.facts(), records))
        written = records


@contextlib.contextmanager
def _held(run: Run, trial: int) -> Iterator[None]:
    """Hold the trial's folder, so that no other process runs the same trial."""
    if not run.machines.first:
        yield
        return
    file = run.trial_folder(trial) / ".lock"
    with locked(file, in_use(f"trial {trial} in {run.folder}", "-o")):
        yield


def _one_trial(rendezvous: Rendezvous, work: Callable, run: Run, trial: int, cfg) -> str:
    """Run a trial in all its processes; what went wrong in one line, or nothing."""
    less = smaller(cfg, run.processes)
    try:
        what = (work, run, trial, run.trial_folder(trial), f"trial {trial}", less)
        rendezvous.run(in_process, run.gpus, what, cuda=cfg.MODEL.DEVICE != "cpu")
    except StoppedEarly:
        raise
    except (InputError, EnvironmentLacks, Stalled) as error:  # so would every other trial
        raise type(error)(f"{error}{_kept(run, trial)}") from None
    except DenseSSLError as error:
        logger.error("trial %d: %s", trial, error)
        return f"{error}{_kept(run, trial)}"
    except Exception as error:
        logger.exception("trial %d failed", trial)
        lines = [line for line in str(error).splitlines() if line.strip()]
        problem = f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"
        return f"{problem}{_kept(run, trial)}"
    return ""


def in_process(
    work: Callable, run: Run, about: Any, folder: Path, what: str, less: list[str]
) -> None:
    """``work(run, about)`` in one process, whose files are in ``folder``.

    A full disk, whatever is written, and too little memory are one message: that of ``what``, with
    the options that need ``less`` memory of a GPU.
    """
    from densessl.core import gpu_memory  # imports torch

    def fixes() -> list[str]:
        folder = " and another -o" if run.has_saved() else ""
        return [f"{fix}{folder}" for fix in less]

    full_disk = files.full_disk_reported(folder)
    with full_disk, limits.enough_memory(lambda: what), gpu_memory.enough(lambda: what, fixes):
        work(run, about)


def _kept(run: Run, trial: int) -> str:
    """What the message of a failed evaluation ends in."""
    if Saved(run.trial_folder(trial)).is_trained():
        return f"; trial {trial} is trained, and its model kept: the same command evaluates it"
    return ""


def register(run: Run) -> None:
    """Tell Detectron2 where this process finds the data, and what the user's file registers."""
    if run.imports:
        user_code.run(run.imports)
    if isinstance(run.data, Custom):
        custom.register(run.data)
    elif isinstance(run.data, Path):  # what trains without Detectron2 reads its own by itself
        datasets.register(run.data)


def run_trial(run: Run, trial: int) -> None:
    """Train and evaluate one trial in this process (one of ``run.gpus``), and write its record."""
    compat.setup()
    import torch
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng

    folder = run.trial_folder(trial)
    main = comm.is_main_process()
    if comm.get_world_size() > 1:  # this is a process of its own
        log.setup(run.folder, comm.get_rank(), run.log)
        register(run)
    cfg = config_files.of_trial(folder / "config.yaml")
    cfg.freeze()
    started = results.now()
    with stoppable(), detectron2_log(folder / "log.txt", main):
        seed_all_rng(cfg.SEED + comm.get_rank())
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
        saved = Saved(folder)
        trained = saved.trained()
        metrics = _evaluate(run, cfg, trial, trained) if trained else _train(run, cfg, trial)
        if main:
            save_record(run, cfg, trial, metrics, started)
            saved.finish()
        stop_after(trial)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _train(run: Run, cfg, trial: int) -> dict[str, float]:
    """Train from wherever the trial's checkpoint stands, then evaluate: its flat metrics."""
    from detectron2.utils import comm

    from densessl.core.loader import close_all

    from .evaluation import flat_metrics
    from .trainer import Trainer

    trainer = Trainer(cfg, trial, run.lines)
    trainer.resume_or_load(resume=True)
    if trainer.start_iter >= cfg.SOLVER.MAX_ITER:  # it ended between its last save and the model's
        trainer.checkpointer.save(Path(FINAL).stem)
        comm.synchronize()
        return _evaluate(run, cfg, trial, run.trial_folder(trial) / FINAL)
    if comm.is_main_process():
        cut_back(Metrics(run.lines), trial, trainer.start_iter)
    try:
        return flat_metrics(trainer.train())
    except FloatingPointError as error:
        raise DenseSSLError(
            f"{' '.join(str(error).split())}; SOLVER.BASE_LR is {cfg.SOLVER.BASE_LR:g}: a lower "
            "one may train"
        ) from None
    finally:
        close_all()


def _evaluate(run: Run, cfg, trial: int, model: Path) -> dict[str, float]:
    """The flat metrics of a trial that is trained, logged as at the end of its training."""
    from detectron2.utils import comm

    main = comm.is_main_process()
    if main:
        logger.info("trial %d is trained already: it is evaluated", trial)
    metrics = measure(cfg, model, CURE)
    if main:
        lines, last = Metrics(run.lines), cfg.SOLVER.MAX_ITER
        cut_back(lines, trial, last, evaluated=False)
        lines.log({"trial": trial, "iteration": last, **metrics})
    return metrics


def save_record(run: Run, cfg, trial: int, metrics: dict[str, float], started: str) -> None:
    """Write the trial's record: the last thing that a trial does."""
    of = {"method": run.weights.method, "pretrain": run.weights.pretrain}
    of["weights"] = {"path": run.weights.path, "sha256": run.weights.sha256}
    results.save(run.trial_folder(trial), record_of(run, cfg, metrics, started, **of))


def record_of(run: Run, cfg, metrics: dict[str, float], started: str, **of) -> results.Record:
    """What was measured just now; ``of``: the fields on the model that it was measured of."""
    return results.Record(
        protocol=run.protocol,
        variant=run.variant,
        seed=cfg.SEED,
        metrics=metrics,
        config_sha256=results.config_fingerprint(results.as_dict(cfg)),
        versions=versions(),
        started=started,
        finished=results.now(),
        mini=run.mini,
        range=image_range.recorded(cfg),
        labels=_labels_kept(run, cfg),
        **of,
    )


def _labels_kept(run: Run, cfg) -> dict[str, Any]:
    """As :class:`results.Record` has them."""
    if own := getattr(run.data, "facts", None):
        return parted.labels(own)
    if not (amount := cfg.DATASETS.get("LABELS", "")):
        return {}
    percent = split.percent(amount)
    known = {} if percent is None else {"percent": percent}
    return {"amount": amount, **known, "seed": cfg.DATASETS.LABELS_SEED}


def versions() -> dict[str, str]:
    """What the numbers depend on: the software, and the GPU if there is one."""
    import platform
    from importlib import metadata

    import torch
    import torchvision

    from .evaluation import fast_coco

    coco = "faster-coco-eval" if fast_coco() else "pycocotools"
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "detectron2": compat.version(),
        coco: metadata.version(coco),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


@contextlib.contextmanager
def detectron2_log(file: Path, main: bool) -> Iterator[None]:
    """Detectron2's and fvcore's own logs, and Python's warnings, go to ``file``."""
    handler: logging.Handler = logging.NullHandler()
    if main:
        handler = log.FileHandler(file, "%(asctime)s %(name)s %(levelname)s %(message)s")
    names = ("detectron2", "fvcore", "py.warnings", "densessl.d2_transfer")
    logging.captureWarnings(True)
    for name in names:
        each = logging.getLogger(name)
        each.handlers, each.propagate = [handler], False
        each.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for name in names:
            logging.getLogger(name).handlers = []
        handler.close()


def cut_back(lines: Metrics, trial: int, steps: int, evaluated: bool = True) -> None:
    """Forget what a killed trial logged after the checkpoint that it resumes from, and the line
    of an evaluation there unless it was ``evaluated`` before that was saved."""

    def stays(line: dict) -> bool:
        step = line.get("iteration", 0)
        return step < steps or (step == steps and (evaluated or "total_loss" in line))

    lines.cut_back(lambda line: line.get("trial") != trial or stays(line))
