"""Detection and segmentation, which Detectron2 trains: what a family of protocols does, as
``classification`` and ``dense_probes`` do it."""

import logging
import os
from pathlib import Path

from . import datasets, lazy_config
from .backbone_choice import follow
from .datasets import registered
from .datasets.custom import Custom
from .evaluate_only import evaluate as evaluate_trained
from .evaluation import build_evaluator
from .image_range import training_pictures as training_files
from .model_check import check_model
from .resolve import describe
from .run import Run
from .trials import register, run_trial
from .weights import prepare

logger = logging.getLogger("densessl")
__all__ = ["check_data", "describe", "evaluate_trained", "prepare", "ready", "run_trial"]
__all__ += ["training_files"]


def check_data(
    cfg,
    data: str | os.PathLike | Custom | None = None,
    stand_in: bool = False,
    evaluates: bool = False,
) -> Path | Custom:
    """The folder that holds the data sets, or the user's own data, which were checked when they
    were read; InputError with what is missing. ``evaluates``: the test sets alone."""
    if isinstance(data, Custom):
        return data
    used = cfg.DATASETS.TEST if evaluates else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    own = registered.among(used)  # which are checked once they are registered
    return datasets.check([name for name in used if name not in own], data, stand_in=stand_in)


def ready(cfg, run: Run, evaluates: bool):
    """The config, once its model can be built and its evaluators are there; InputError."""
    if cfg.MODEL.DEVICE == "cpu":
        plain = run.processes == 1
        norm = "BN, whose statistics in one process are SyncBN's" if plain else "naiveSyncBN"
        logger.info("no CUDA device: on the CPU, with %s", norm)
    register(run)
    cfg = _with_registered(cfg, evaluates)
    cfg = follow(cfg, run.weights.network)
    check_model(cfg, run.named)
    for name in cfg.DATASETS.TEST:  # what an evaluator lacks is said before the training
        sigmas, named = cfg.TEST.KEYPOINT_OKS_SIGMAS, cfg.TEST.EVALUATOR
        build_evaluator(name, "", 0, sigmas, named, lazy_config.evaluator(cfg))
    return cfg


def _with_registered(cfg, evaluates: bool):
    """``cfg`` with the hashes of the data sets that the user's code registers, once checked."""
    trained, tested = (registered.among(cfg.DATASETS[key]) for key in ("TRAIN", "TEST"))
    of_training = dict.fromkeys(trained, not evaluates)
    hashes = [
        registered.check(name, trains, cfg.MODEL.MASK_ON)
        for name, trains in (of_training | dict.fromkeys(tested, False)).items()
    ]
    if not hashes:
        return cfg
    made = cfg.clone()
    made.defrost()
    made.DATASETS.CUSTOM = " ".join(hashes)
    made.freeze()
    return made
