"""k trials of one protocol: each with its seed, resumable, recorded, then averaged."""

import contextlib
import gc
import json
import logging
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from console import files, log
from console.errors import DenseSSLError, InputError
from console.progress import duration
from d2_transfer import compat, datasets, results
from d2_transfer.protocols import PROTOCOLS, describe
from d2_transfer.stops import StopRequest
from d2_transfer.weights import Weights

logger = logging.getLogger("densessl")


@dataclass(frozen=True)
class Run:
    """What all trials of one folder have in common."""

    folder: Path
    protocol: str
    variant: str
    mini: bool
    weights: Weights
    data: Path  # holds the data sets
    gpus: int = 1

    def trial_folder(self, trial: int) -> Path:
        return self.folder / f"trial_{trial}"

    def facts(self) -> dict:
        """What must be the same for a folder to be gone on with, beside the config."""
        return {
            "protocol": self.protocol,
            "variant": self.variant,
            "mini": self.mini,
            "weights": self.weights.path,
            "weights_sha256": self.weights.sha256,
            "method": self.weights.method,
        }


def run_trials(run: Run, cfg, trials: int, seed: int) -> list[results.Record]:
    """Do the trials that are not finished, with seeds ``seed``, ``seed + 1``, …; all records.

    Writes ``summary.json`` (mean, standard deviation with n−1, n) when all are done. Raises
    InputError when the folder belongs to another run, StoppedEarly (everything saved) on Ctrl-C or
    SIGTERM.
    """
    check_folder(run, cfg)
    datasets.register(run.data)
    _begin_folder(run, cfg)
    logger.info(describe(cfg, run.gpus))
    began, done_now = time.monotonic(), 0
    records = []
    for trial in range(1, trials + 1):
        record = finished(run, cfg, trial, seed + trial - 1)
        if record:
            logger.info("trial %d of %d is finished (seed %d)", trial, trials, record.seed)
        else:
            _begin_trial(run, cfg, trial, seed + trial - 1)
            compat.launch(run_trial, run.gpus, (run, trial), cuda=cfg.MODEL.DEVICE != "cpu")
            record = results.load(run.trial_folder(trial))
            done_now += 1
            each = (time.monotonic() - began) / done_now
            left = f"; about {duration(each * (trials - trial))} left" if trial < trials else ""
            logger.info("trial %d of %d took %s%s", trial, trials, duration(each), left)
        records.append(record)
    files.write_json(run.folder / "summary.json", summary(run, records))
    return records


def run_trial(run: Run, trial: int) -> None:
    """Train and evaluate one trial in this process (one of ``run.gpus``), and write its record."""
    compat.setup()
    import torch
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng

    from d2_transfer.evaluators import flat_metrics
    from d2_transfer.trainer import Trainer, keep_model_only

    folder = run.trial_folder(trial)
    main = comm.is_main_process()
    if comm.get_world_size() > 1:  # this is a process of its own
        log.setup(run.folder, comm.get_rank())
        datasets.register(run.data)
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(folder / "config.yaml"), allow_unsafe=False)
    cfg.freeze()
    started = results.now()
    with StopRequest(), _detectron2_log(folder, main):
        seed_all_rng(cfg.SEED + comm.get_rank())
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
        trainer = Trainer(cfg, trial, run.folder / "metrics.jsonl")
        trainer.resume_or_load(resume=True)
        if main:
            _cut_back(run.folder / "metrics.jsonl", trial, trainer.start_iter)
        try:
            metrics = flat_metrics(trainer.train())
        except FloatingPointError as error:
            raise DenseSSLError(
                f"trial {trial} stopped: {' '.join(str(error).split())}; "
                f"SOLVER.BASE_LR is {cfg.SOLVER.BASE_LR:g}: a lower one may train"
            ) from None
        if main:
            _record(run, cfg, trial, metrics, started)
            keep_model_only(trainer)
        del trainer
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def finished(run: Run, cfg, trial: int, seed: int) -> results.Record | None:
    """The record of a trial that needs no more work; InputError if it is another run's."""
    folder = run.trial_folder(trial)
    if not (folder / results.FILE).is_file():
        return None
    record = results.load(folder)
    fingerprint = results.config_fingerprint(as_dict(cfg))
    if record.config_sha256 != fingerprint:
        other = results.config_of(record) or {}
        raise _other_run(folder, _differences(other, results.flat(as_dict(cfg))))
    found = (record.seed, record.weights["sha256"], record.protocol, record.variant)
    wanted = (seed, run.weights.sha256, run.protocol, run.variant)
    names = ("seed", "weights sha256", "protocol", "variant")
    different = [
        f"{name} {a} there, {b} here"
        for name, a, b in zip(names, found, wanted, strict=True)
        if a != b
    ]
    if different:
        raise _other_run(folder, different)
    return record


def check_folder(run: Run, cfg) -> None:
    """Refuse a folder that another run has begun: other weights, another protocol or config."""
    facts = run.folder / "run.json"
    if not facts.is_file():
        return
    different = _differences(json.loads(facts.read_text()), run.facts())
    written = yaml.safe_load((run.folder / "config.yaml").read_text())
    different += _differences(results.flat(written), results.flat(as_dict(cfg)))
    if different:
        raise _other_run(run.folder, different)


def _differences(there: dict, here: dict) -> list[str]:
    return [
        f"{key} {there.get(key)!r} there, {here.get(key)!r} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]


def _other_run(folder: Path, different: list[str]) -> InputError:
    some = "; ".join(different[:5]) + ("; …" if len(different) > 5 else "")
    return InputError(
        f"{folder} holds another run ({some}); give the same command as before, or another -o"
    )


def as_dict(cfg) -> dict:
    """A config as plain values, as its YAML has them."""
    return yaml.safe_load(cfg.dump())


def summary(run: Run, records: list[results.Record]) -> dict:
    """Mean, sample standard deviation (null for one trial), n and the values of every metric.

    A metric that is undefined (NaN) in some trial is left out.
    """
    metrics = {}
    for name in records[0].metrics:
        values = [record.metrics.get(name, float("nan")) for record in records]
        if all(value == value for value in values):
            metrics[name] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "n": len(values),
                "values": values,
            }
    return {**run.facts(), "seeds": [record.seed for record in records], "metrics": metrics}


def table(run: Run, records: list[results.Record]) -> str:
    """The protocol's metrics as text: a line a trial, then mean ± standard deviation."""
    names = [name for name in PROTOCOLS[run.protocol].metrics if name in records[0].metrics]
    averages = summary(run, records)["metrics"]
    width = max(14, *(len(name) + 2 for name in names))
    lines = [f"{'':16s}" + "".join(f"{name:>{width}s}" for name in names)]
    for number, record in enumerate(records, start=1):
        cells = "".join(f"{record.metrics[name]:{width}.2f}" for name in names)
        lines.append(f"{f'trial {number} (seed {record.seed})':16s}" + cells)
    cells = []
    for name in names:
        average = averages.get(name, {"mean": float("nan"), "std": None})
        spread = "" if average["std"] is None else f" ± {average['std']:.2f}"
        cells.append(f"{average['mean']:.2f}{spread}")
    count = len(records)
    lines.append(f"{f'mean of {count}':16s}" + "".join(f"{cell:>{width}s}" for cell in cells))
    return "\n".join(lines)


def _begin_folder(run: Run, cfg) -> None:
    files.write_text(run.folder / "config.yaml", cfg.dump())
    files.write_json(run.folder / "run.json", run.facts())


def _begin_trial(run: Run, cfg, trial: int, seed: int) -> None:
    """The trial's folder with its own config: the seed, the folder, the weights."""
    own = cfg.clone()
    own.defrost()
    own.SEED = seed
    own.OUTPUT_DIR = str(run.trial_folder(trial).absolute())
    own.MODEL.WEIGHTS = run.weights.file
    files.write_text(run.trial_folder(trial) / "config.yaml", own.dump())


def _record(run: Run, cfg, trial: int, metrics: dict[str, float], started: str) -> None:
    record = results.Record(
        method=run.weights.method,
        weights={"path": run.weights.path, "sha256": run.weights.sha256},
        pretrain=run.weights.pretrain,
        protocol=run.protocol,
        variant=run.variant,
        seed=cfg.SEED,
        metrics=metrics,
        config_sha256=results.config_fingerprint(as_dict(cfg)),
        versions=versions(),
        started=started,
        finished=results.now(),
        mini=run.mini,
    )
    results.save(run.trial_folder(trial), record)


def versions() -> dict[str, str]:
    """What the numbers depend on: the software, and the GPU if there is one."""
    import platform
    from importlib import metadata

    import torch
    import torchvision

    from d2_transfer.evaluators import fast_coco

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
def _detectron2_log(folder: Path, main: bool) -> Iterator[None]:
    """Detectron2's and fvcore's own logs, and Python's warnings, go to the trial's log.txt."""
    handler: logging.Handler = logging.NullHandler()
    if main:
        handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    names = ("detectron2", "fvcore", "py.warnings", "d2_transfer")
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


def _cut_back(lines: Path, trial: int, steps: int) -> None:
    """Forget what a killed trial logged after the checkpoint that it goes on from."""
    if not lines.is_file():
        return
    kept = []
    for line in lines.read_text().splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # cut short by the kill
            continue
        if values.get("trial") != trial or values.get("iteration", 0) <= steps:
            kept.append(line + "\n")
    files.write_text(lines, "".join(kept))
