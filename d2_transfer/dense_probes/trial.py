"""One trial of a dense probe in this process, from its folder to its record."""

import gc
import os
from pathlib import Path

from fvcore.common.config import CfgNode

from densessl.core.distributed import barrier, rank

from .. import results, trials, windows
from ..classification import weights
from ..classification.networks import check_size, network_of, stages_of
from ..classification.trial import begun, features_of, tell_images, written_once
from ..run import Run
from ..stops import evaluation, stop_after, stoppable
from ..weights import Weights
from .config import C
from .data import labelled, read
from .own import OwnData
from .probing import measure


def prepare(named: str, folder: str | os.PathLike, cfg: CfgNode) -> Weights:
    """The weights file that a trial starts from, as :func:`classification.prepare` makes it."""
    return weights.prepare(named, folder, cfg, _check)


def _check(cfg: CfgNode, facts: dict | None) -> None:
    name = network_of(cfg.MODEL.BACKBONE, facts)
    check_size(name, tuple(cfg.INPUT.SIZE))
    stages_of(name, cfg.FEATURES.LEVELS, "FEATURES.LEVELS")


def ready(cfg: CfgNode, run: Run, evaluates: bool) -> CfgNode:
    """The config as it is: what else may be wrong with it, the weights tell."""
    windows.check_used(cfg, run.named)
    return cfg


def run_trial(run: Run, trial: int) -> None:
    """Measure one trial in this process (one of ``run.gpus``), and write its record.

    As :func:`d2_transfer.trials.run_trial`: reads the trial's ``config.yaml``, takes the features
    that are there, and raises StoppedEarly when asked to stop. Leaves no model: there is none.
    """
    cfg, device = begun(C, run, run.trial_folder(trial))
    started = results.now()
    with stoppable(), written_once(rank()):
        assert isinstance(run.data, Path | OwnData)
        train, test = read(cfg, run.data)
        if cfg.DATASETS.LABELS:
            train = labelled(cfg, train, says=rank() == 0)
        tell_images(train, test)
        cache = features_of(run, cfg.FEATURES.CACHE)
        kept = run.trial_folder(trial)
        with evaluation():
            metrics = measure(cfg, train, test, run.weights.sha256, cache, device, kept)
        if rank() == 0:
            trials.save_record(run, cfg, trial, metrics, started)
        barrier()
        stop_after(trial)
    gc.collect()
