"""One trial of a classification protocol in this process, from its folder to its record."""

import contextlib
import gc
import hashlib
import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from console import files, log
from d2_transfer import results, trials
from d2_transfer.run import Run, as_dict
from d2_transfer.stops import StopRequest
from d2_transfer.trained import FINAL

from . import knn_trial, search
from .accuracy import Counts, flat_metrics
from .config import C
from .data import read, training_images
from .fit import Fit, forget
from .images import Images
from .models import Classifier, LinearProbe, Model
from .networks import build_backbone
from .processes import barrier, rank, world
from .settings import Setting, configured

logger = logging.getLogger("densessl")


def run_trial(run: Run, trial: int) -> None:
    """Train and evaluate one trial in this process (one of ``run.gpus``), and write its record.

    As :func:`d2_transfer.trials.run_trial`: reads the trial's ``config.yaml``, goes on from its
    checkpoint, saves and raises StoppedEarly when asked to stop. Leaves ``model_final.pth``, what
    was trained.
    """
    if world() > 1:  # this is a process of its own
        log.setup(run.folder, rank(), run.log)
    folder = run.trial_folder(trial)
    cfg = C.clone()
    cfg.merge_from_file(str(folder / "config.yaml"))
    cfg.freeze()
    started = results.now()
    device = _device(cfg)
    torch.backends.cudnn.benchmark = True  # all images have one size
    with StopRequest(), _written_once(rank()):
        train, test = read(cfg, Path(run.data))
        train = training_images(cfg, train, Path(run.data))
        if rank() == 0:
            logger.info(
                "%d training images (%s) and %d test images (%s) of %d classes",
                *(len(train), train.where, len(test), test.where, len(train.classes)),
            )
        if cfg.TASK == "knn":
            start = run.weights.sha256 or f"random, seed {cfg.SEED}"
            cache = Path(cfg.KNN.CACHE).expanduser() if cfg.KNN.CACHE else run.folder / "features"
            metrics = knn_trial.evaluate(cfg, train, test, start, cache, device)
        else:
            task = _linear if cfg.TASK == "linear" else _finetune
            metrics = task(cfg, run, trial, train, test, device)
    if rank() == 0:
        trials.save_record(run, cfg, trial, metrics, started)
        forget(folder)
    barrier()
    gc.collect()


def _linear(
    cfg: CfgNode, run: Run, trial: int, train: Images, test: Images, device: torch.device
) -> dict[str, float]:
    """Classifiers on frozen features: the configured rate, and each of SOLVER.SWEEP."""
    rates = [cfg.SOLVER.BASE_LR, *(r for r in cfg.SOLVER.SWEEP if r != cfg.SOLVER.BASE_LR)]
    model = LinearProbe(_backbone(cfg), len(train.classes), rates, cfg).to(device)
    fit, counts = _fit(cfg, run, trial, model, configured(cfg), train, test)
    metrics = flat_metrics("linear", counts) | {"linear/top1_best_epoch": fit.best}
    if len(rates) > 1:
        best = counts.best()
        metrics |= {"linear/top1_best_lr": counts.top1(best), "linear/best_lr": rates[best]}
        metrics |= {f"linear/top1_lr{rate:g}": counts.top1(n) for n, rate in enumerate(rates)}
    return metrics


def _finetune(
    cfg: CfgNode, run: Run, trial: int, train: Images, test: Images, device: torch.device
) -> dict[str, float]:
    """The whole network, with the setting that a search chose or SOLVER names."""

    def build(setting: Setting) -> Model:
        return Classifier(_backbone(cfg), len(train.classes), setting, cfg).to(device)

    asked = results.config_fingerprint(as_dict(cfg)) + run.weights.sha256
    place = run.folder / "search" / hashlib.sha256(asked.encode()).hexdigest()[:12]
    setting, told = search.choose(cfg, train, place, build)
    fit, counts = _fit(cfg, run, trial, build(setting), setting, train, test)
    metrics = flat_metrics("cls", counts) | {"cls/mean_class": counts.mean_class()}
    if cfg.TEST.EVAL_PERIOD:
        metrics["cls/top1_best_epoch"] = fit.best
    return metrics | told


def _fit(
    cfg: CfgNode, run: Run, trial: int, model: Model, setting: Setting, train: Images, test: Images
) -> tuple[Fit, Counts]:
    folder = run.trial_folder(trial)
    fit = Fit(cfg, model, setting, train, test, folder, run.lines, trial, f"trial {trial}")
    fit.train_to_the_end()
    if rank() == 0:
        held = {"model": {name: t.cpu() for name, t in model.trained.state_dict().items()}}
        files.write_atomic(folder / FINAL, lambda stream: torch.save(held, stream))
    return fit, fit.evaluate()


def _backbone(cfg: CfgNode):
    return build_backbone(cfg.MODEL.BACKBONE, cfg.MODEL.WEIGHTS, cfg.INPUT.SIZE, cfg.SEED)


def _device(cfg: CfgNode) -> torch.device:
    if cfg.MODEL.DEVICE == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


@contextlib.contextmanager
def _written_once(process: int):
    """What several processes would say alike, one says."""
    level = logger.level
    if process:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
