"""One trial of a classification protocol in this process, from its folder to its record."""

import contextlib
import gc
import hashlib
import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from densessl.core import log
from densessl.core.distributed import barrier, rank, world_size

from .. import channels, evaluate_only, results, trained, trials
from ..run import Run
from ..saved import Saved
from ..stops import evaluation, stop_after, stoppable
from . import controls, knn_trial, search
from .accuracy import Counts, flat_metrics
from .config import C
from .data import read, training_images
from .fit import Fit, evaluate
from .images import Images
from .loading import EvaluationCrops
from .models import Classifier, LinearClassifier, Model
from .networks import build_backbone
from .own import OwnImages
from .settings import Setting, configured

logger = logging.getLogger("densessl")


def run_trial(run: Run, trial: int) -> None:
    """Train and evaluate one trial in this process (one of ``run.gpus``), and write its record.

    As :func:`d2_transfer.trials.run_trial`: reads the trial's ``config.yaml``, resumes from its
    checkpoint, saves and raises StoppedEarly when asked to stop. Leaves ``model_final.pth``, what
    was trained.
    """
    folder = run.trial_folder(trial)
    cfg, device = begun(C, run, folder)
    started = results.now()
    with stoppable(), written_once(rank()):
        train, test = read(cfg, _data_of(run))
        train = training_images(cfg, train, _data_of(run), says=rank() == 0)
        tell_images(train, test)
        if cfg.TASK == "knn":
            cache = features_of(run, cfg.KNN.CACHE)
            with evaluation():
                metrics = knn_trial.evaluate(cfg, train, test, run.weights.sha256, cache, device)
        else:
            task = _linear if cfg.TASK == "linear" else _finetune
            metrics = task(cfg, run, trial, train, test, device)
        if rank() == 0:
            trials.save_record(run, cfg, trial, metrics, started)
            Saved(folder).finish()
        barrier()
        stop_after(trial)
    gc.collect()


def evaluate_trained(run: Run, known: evaluate_only.ModelOrigin) -> None:
    """Evaluate ``run.weights``, what a trial has trained, in this process, and write the record.

    As :func:`d2_transfer.evaluate_only.evaluate`. Its metrics are the trial's, less what only a
    training can tell: the best epoch, and what a search chose.
    """
    cfg, device = begun(C, run, run.folder)
    started = results.now()
    with stoppable(), written_once(rank()):
        train, test = read(cfg, _data_of(run))
        classes, linear = len(train.classes), cfg.TASK == "linear"
        model = _probe(cfg, train) if linear else _classifier(cfg, classes, configured(cfg))
        trained.fill(model.trained, run.weights.file)
        with evaluation():
            counts = evaluate(model.to(device), test, cfg)
        metrics = _linear_metrics(cfg, counts) if linear else _metrics(counts)
    if rank() == 0:
        evaluate_only.write(run, known, cfg, metrics, started)
    barrier()
    gc.collect()


def _data_of(run: Run) -> Path | OwnImages:
    assert isinstance(run.data, Path | OwnImages)
    return run.data


def begun(options: CfgNode, run: Run, folder: Path) -> tuple[CfgNode, torch.device]:
    """This process's config, ``options`` with what ``folder`` holds, and its device."""
    if world_size() > 1:  # this is a process of its own
        log.setup(run.folder, rank(), run.log)
    cfg = options.clone()
    cfg.merge_from_file(str(folder / "config.yaml"))
    cfg.freeze()
    torch.backends.cudnn.benchmark = True  # all images have one size
    if cfg.MODEL.DEVICE == "cpu":
        return cfg, torch.device("cpu")
    return cfg, torch.device("cuda", torch.cuda.current_device())


def _linear(
    cfg: CfgNode, run: Run, trial: int, train: Images, test: Images, device: torch.device
) -> dict[str, float]:
    """Classifiers on frozen features: the configured rate, and each of SOLVER.SWEEP."""
    model = _probe(cfg, train).to(device)
    fit, counts = _fit(cfg, run, trial, model, configured(cfg), train, test)
    return _linear_metrics(cfg, counts) | {"linear/top1_best_epoch": fit.best}


def _linear_metrics(cfg: CfgNode, counts: Counts) -> dict[str, float]:
    metrics, rates = flat_metrics("linear", counts), _rates(cfg)
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
        return _classifier(cfg, len(train.classes), setting).to(device)

    asked = results.config_fingerprint(results.as_dict(cfg)) + run.weights.sha256
    folder = run.folder / "search" / hashlib.sha256(asked.encode()).hexdigest()[:12]
    setting, chosen = search.choose(cfg, train, folder, build)
    fit, counts = _fit(cfg, run, trial, build(setting), setting, train, test)
    metrics = _metrics(counts)
    if cfg.TEST.EVAL_PERIOD:
        metrics["cls/top1_best_epoch"] = fit.best
    return metrics | chosen


def _metrics(counts: Counts) -> dict[str, float]:
    return flat_metrics("cls", counts) | {"cls/mean_class": counts.mean_class()}


def _rates(cfg: CfgNode) -> list[float]:
    return [cfg.SOLVER.BASE_LR, *(r for r in cfg.SOLVER.SWEEP if r != cfg.SOLVER.BASE_LR)]


def _probe(cfg: CfgNode, train: Images) -> Model:
    backbone = _backbone(cfg)
    controls.settle(backbone, EvaluationCrops(train, cfg), len(train), cfg, train.path)
    return LinearClassifier(backbone, len(train.classes), _rates(cfg), cfg)


def _classifier(cfg: CfgNode, classes: int, setting: Setting) -> Model:
    return Classifier(_backbone(cfg), classes, setting, cfg)


def _fit(
    cfg: CfgNode, run: Run, trial: int, model: Model, setting: Setting, train: Images, test: Images
) -> tuple[Fit, Counts]:
    folder = run.trial_folder(trial)
    fit = Fit(cfg, model, setting, train, test, folder, run.lines, trial, f"trial {trial}")
    fit.train_to_the_end()
    if rank() == 0:
        held = {name: tensor.cpu() for name, tensor in model.trained.state_dict().items()}
        Saved(folder).save_final(held)
    return fit, fit.evaluate()


def _backbone(cfg: CfgNode):
    return build_backbone(
        cfg.MODEL.BACKBONE, cfg.MODEL.WEIGHTS, cfg.INPUT.SIZE, cfg.SEED, channels.of(cfg)
    )


def tell_images(train, test) -> None:
    """A line on what is learnt from, and what is evaluated."""
    logger.info(
        "%d training images (%s) and %d test images (%s) of %d classes",
        len(train),
        train.where,
        len(test),
        test.where,
        len(train.classes),
    )


def features_of(run: Run, named: str) -> Path:
    """The folder of the features: the one that an option names, else the run's own."""
    return Path(named).expanduser() if named else run.folder / "features"


@contextlib.contextmanager
def written_once(process: int):
    """What several processes would say alike, one says."""
    level = logger.level
    if process:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
