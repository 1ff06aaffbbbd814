"""A protocol's complete config: its file, the machine, the user's own options."""

import importlib
from collections.abc import Collection, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fvcore.common.config import CfgNode

from densessl.annotations.split import amount
from densessl.core import options
from densessl.core.errors import InputError, unknown
from densessl.core.external import MARK
from densessl.core.units import many

from . import (
    channels,
    compat,
    config_files,
    image_range,
    lazy_config,
    miniature,
    option_rules,
    projects,
    user_code,
    windows,
)
from .config import ADAMW, ONCE, OPTIMIZERS, PRECISIONS, REPEATING, SAMPLERS, SGD, VITDET
from .config_files import COMMAND_LINE, Layers, unknown_key
from .datasets import custom as custom_data
from .datasets.custom import Custom
from .datasets.layouts import are_semantic
from .protocols import CLASSIFICATION, DETECTION, Protocol, anywhere, find

if TYPE_CHECKING:
    from .classification.own import OwnImages
    from .dense_probes.own import OwnData

ELSEWHERE = {
    "IMPORT": "--import",
    "SEED": "--seed",
    "OUTPUT_DIR": "-o",
    "MODEL.WEIGHTS": "WEIGHTS, the first argument",
}
SCALED = {"IMS_PER_BATCH": "images a step", "BASE_LR": "learning rate", "MAX_ITER": "iterations"}
LENGTHS = (  # in iterations
    ("SOLVER", "MAX_ITER"),
    ("SOLVER", "WARMUP_ITERS"),
    ("SOLVER", "CHECKPOINT_PERIOD"),
    ("TEST", "EVAL_PERIOD"),
)
NORMS = (
    ("RESNETS", "NORM"),
    ("FPN", "NORM"),
    ("ROI_BOX_HEAD", "NORM"),
    ("ROI_MASK_HEAD", "NORM"),
    ("SEM_SEG_HEAD", "NORM"),
)


def resolve(
    protocol: str,
    variant: str | None = None,
    gpus: int | None = None,
    mini: bool = False,
    overrides: Sequence[str] = (),
    cuda: bool = True,
    custom: "Custom | OwnData | OwnImages | None" = None,
    keep_batch: bool = False,
    plain: bool = False,
    imports: str | None = None,
    labels: str | None = None,
    data_seed: int | None = None,
):
    """The protocol's complete config, frozen.

    ``gpus`` processes work on it (None: as many as its source used). Where Detectron2 trains with
    fewer, the images a step and the learning rate shrink and the schedule stretches in proportion
    (its own rule), unless ``keep_batch`` leaves them; elsewhere their number changes only how the
    images are shared. ``cuda`` False: for the CPU. ``custom``: the user's data, for the protocols
    of that name. ``imports``: a file of the user's, which is run. ``labels``, ``data_seed``: which
    images of known data sets keep their labels. ``overrides``: KEY VALUE …,
    applied last, and they win. ``plain``: to be read, not to be trained with; it needs neither
    torch nor Detectron2 imported (seconds), and its class is fvcore's. Raises InputError for
    unknown names and keys (naming the nearest) and values that do not fit.
    """
    found, variant = find(protocol, variant)
    if found.file(variant).suffix == lazy_config.SUFFIX:
        if labels:
            raise InputError(
                f"--labels is '{labels}'; a LazyConfig makes its data sets itself: allowed with "
                "YAML configs alone"
            )
        return _lazy(found.file(variant), gpus, mini, overrides, cuda, imports)
    overrides = [*_labels_kept(found, labels, data_seed), *overrides]
    layers = config_files.read(found.file(variant))
    with config_files.placed(_places(found, layers, mini, overrides)):
        if found.family == DETECTION:
            if plain:
                compat.require_installed()
            _refuse_code(layers)
            imported = user_code.run(imports) if imports else ""
            keys = options.pairs([*found.words, *overrides])[::2]
            named = projects.with_named(layers.projects, keys)
            cfg = compat.default_options(named) if plain else compat.get_cfg(named)
            config_files.merge(cfg, layers)
            cfg.IMPORT = imported
            override(cfg, found.words)
            return _of_detectron2(cfg, gpus, mini, overrides, cuda, custom, keep_batch)
        if imports:
            raise InputError(
                f"--import is '{imports}', but {protocol} does not train with Detectron2"
            )
        if keep_batch:
            raise InputError(
                f"--keep-batch is for detection and segmentation; {protocol} has the same images a "
                "step on any number of GPUs: leave it out"
            )
        return _plain(found, layers, gpus or 1, mini, overrides, cuda, custom)


def places(
    protocol: str, variant: str | None, mini: bool, overrides: Sequence[str]
) -> dict[str, str]:
    """Of each key that is not at its default where :func:`resolve` has its value from."""
    found, variant = find(protocol, variant)
    if found.file(variant).suffix == lazy_config.SUFFIX:
        return {}
    return _places(found, config_files.read(found.file(variant)), mini, overrides)


def _places(
    found: Protocol, layers: Layers, mini: bool, overrides: Sequence[str]
) -> dict[str, str]:
    known = layers.places | dict.fromkeys(found.options, f"the options of {found.name}")
    if mini:
        semantic = are_semantic(found.datasets)
        backbone = str(options.flat(layers.values).get("MODEL.BACKBONE.NAME"))
        small = miniature.file(semantic, layers.projects, backbone)
        if found.family != DETECTION:
            small = _config_room(found).MINI
        known |= config_files.read(small).places
    return known | dict.fromkeys(options.pairs(overrides)[::2], COMMAND_LINE)


def _refuse_code(layers: Layers) -> None:
    """A config may be another's: no file is run because a config names it."""
    held = options.flat(layers.values)
    if "IMPORT" in held:
        raise InputError(f"{layers.places['IMPORT']}: IMPORT is set by --import alone")
    if MARK in str(held.get("TEST.EVALUATOR", "")):
        raise InputError(
            f"{layers.places['TEST.EVALUATOR']}: TEST.EVALUATOR is {held['TEST.EVALUATOR']!r}; a "
            "file of yours is named on the command line: TEST.EVALUATOR file.py:Name"
        )


def _lazy(file: Path, gpus: int | None, mini: bool, overrides, cuda: bool, imports: str | None):
    """The config that stands for a LazyConfig, frozen."""
    if mini:
        raise InputError(
            f"--mini has no miniature of {file.name}; make it small by its own keys, such as "
            "train.max_iter 50"
        )
    imported = user_code.run(imports) if imports else ""
    cfg = compat.get_cfg()
    ours = lazy_config.apply(cfg, file, overrides)
    cfg.IMPORT = imported
    if not cuda:
        _for_cpu(cfg, gpus or 1)
    override(cfg, ours)
    cfg.TEST.EVALUATOR = anywhere(cfg.TEST.EVALUATOR)
    user_code.check_names((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), str(file))
    _check(cfg, gpus or 1, cuda)
    cfg.freeze()
    return cfg


def _config_room(found: Protocol) -> ModuleType:
    return importlib.import_module(f".{found.family}.config", __package__)


def _of_detectron2(
    cfg, gpus: int | None, mini: bool, overrides, cuda: bool, custom, keep_batch: bool
):
    """``cfg``, a protocol's own, for this machine, with the user's data and options."""
    if custom is not None:
        custom_data.apply(custom, cfg)
        channels.in_files(cfg, custom)
    user_code.check_names((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), cfg.IMPORT)
    full = cfg.clone()
    gpus = gpus or cfg.SOLVER.REFERENCE_WORLD_SIZE or 1
    if not mini:
        cfg = scale(cfg, gpus, keep_batch)
    if not cuda:
        _for_cpu(cfg, gpus)
    shrink_rest = miniature.shrink(cfg, full) if mini else None
    named = override(cfg, overrides)
    cfg.TEST.EVALUATOR = anywhere(cfg.TEST.EVALUATOR)  # for processes that run in another folder
    if shrink_rest:
        shrink_rest(named)
    _check(cfg, gpus, cuda)
    cfg.freeze()
    return cfg


def _labels_kept(found: Protocol, labels: str | None, data_seed: int | None) -> list[str]:
    """``--labels`` of known data sets as options; a user's own are drawn where they are read."""
    if not labels or found.needs or found.instead:
        return []
    words = f"{labels} images" if labels.isdigit() else labels  # YAML's text of a number is one
    return ["DATASETS.LABELS", words, "DATASETS.LABELS_SEED", str(data_seed or 0)]


def _plain(
    found: Protocol, layers: Layers, gpus: int, mini: bool, overrides, cuda: bool, custom
) -> CfgNode:
    """As :func:`resolve`, of a protocol without Detectron2, whose family has a ``config``."""
    room = _config_room(found)
    cfg = room.C.clone()
    config_files.merge(cfg, layers)
    override(cfg, found.words)
    if custom is not None:
        key = "FOLDER" if found.family == CLASSIFICATION else "CUSTOM"
        cfg.DATASETS[key] = " ".join(custom.sha256)
        channels.in_files(cfg, custom)
    if not cuda:
        cfg.MODEL.DEVICE = "cpu"
        option_rules.amp_off_on_cpu(cfg)
        if "NORM" in cfg.MODEL:
            cfg.MODEL.NORM = "BN"  # of each process
    if mini:
        room.shrink(cfg)
    override(cfg, overrides)
    if cfg.DATASETS.LABELS:
        amount(cfg.DATASETS.LABELS)  # InputError
    room.check(cfg, gpus, cuda)
    cfg.freeze()
    return cfg


def check_words(protocol: str, overrides: Sequence[str], gpus: int | None = None, **how) -> None:
    """InputError for an unknown protocol, variant or key, and for values of another type.

    It says in a moment what :func:`resolve`, of whose arguments ``how`` are, would say once torch
    and Detectron2 are imported.
    """
    found, variant = find(protocol, how.get("variant"))
    file = found.file(variant)
    if found.family != DETECTION:
        resolve(protocol, gpus=gpus, overrides=overrides, **how)
    elif file.suffix == lazy_config.SUFFIX:
        lazy_config.check_words(file, overrides)
    elif compat.is_installed("detectron2"):
        if not how.get("imports"):
            user_code.check_names(found.datasets, None)
        keys = options.pairs(overrides)[::2]
        named = projects.with_named(config_files.read(file).projects, keys)
        override(compat.default_options(named), overrides)


def scale(cfg, gpus: int, keep_batch: bool = False):
    """``cfg`` for ``gpus`` GPUs instead of SOLVER.REFERENCE_WORLD_SIZE (facebookresearch/moco#11).

    With fewer, IMS_PER_BATCH, BASE_LR and MIN_LR are multiplied by gpus/reference, STEPS, MAX_ITER,
    WARMUP_ITERS and the periods by reference/gpus: what Detectron2's auto_scale_workers does, whose
    import takes seconds. With more, or with ``keep_batch``, nothing changes: they share the same
    images a step.
    """
    cfg = cfg.clone()
    solver = cfg.SOLVER
    reference, solver.REFERENCE_WORLD_SIZE = solver.REFERENCE_WORLD_SIZE, gpus
    if keep_batch or gpus >= reference:
        return cfg
    if solver.IMS_PER_BATCH % reference:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}; allowed: a multiple of "
            f"SOLVER.REFERENCE_WORLD_SIZE, which is {reference}"
        )
    share = gpus / reference
    solver.IMS_PER_BATCH = round(solver.IMS_PER_BATCH * share)
    solver.BASE_LR, solver.MIN_LR = solver.BASE_LR * share, solver.MIN_LR * share
    solver.STEPS = tuple(round(step / share) for step in solver.STEPS)
    for node, key in LENGTHS:
        cfg[node][key] = round(cfg[node][key] / share)
    return cfg


def describe(cfg, gpus: int) -> str:
    """One line on what is trained, with what was scaled."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "PolyLR":
        curve = f"falling to {solver.MIN_LR:g} by power {solver.POLY_POWER:g}"
    elif solver.LR_SCHEDULER_NAME == "WarmupPolyLR":
        curve = f"falling to 0 by power {solver.POLY_LR_POWER:g}"
    else:
        steps = ", ".join(map(str, solver.STEPS))
        curve = f"with steps at {steps}" if steps else "with no step"
    curve += f" and {solver.WARMUP_ITERS} of warm-up"
    if cfg.LAZY.CONFIG:
        curve = "by its lr_multiplier"
    return (
        f"{many(gpus, 'process')} on {cfg.MODEL.DEVICE}, "
        f"{solver.IMS_PER_BATCH} images a step, {solver.MAX_ITER} iterations, learning rate "
        f"{solver.BASE_LR:g} {curve}, "
        f"norm {cfg.MODEL.RESNETS.NORM}, {option_rules.amp(cfg)}"
    )


def describe_scaling(source, cfg, gpus: int, named: Collection[str] = ()) -> str:
    """One line on what the linear rule changed for ``gpus`` GPUs; empty where nothing was.

    ``source``: the same config for as many GPUs as its source used, both without the user's own
    options. Those (``named``) were not scaled.
    """
    there, here = source.SOLVER, cfg.SOLVER
    changed = [
        f"{words} {there[key]:g} -> {here[key]:g}"
        for key, words in SCALED.items()
        if there[key] != here[key] and f"SOLVER.{key}" not in named
    ]
    if not changed:
        return ""
    return (
        f"linear rule for {gpus} instead of {there.REFERENCE_WORLD_SIZE} GPUs: "
        f"{', '.join(changed)}; --keep-batch leaves all"
    )


def _for_cpu(cfg, gpus: int) -> None:
    """torch's SyncBN wants CUDA; with one process plain BN has the very same statistics."""
    cfg.MODEL.DEVICE = "cpu"
    option_rules.amp_off_on_cpu(cfg)
    for node, key in NORMS:
        if cfg.MODEL[node][key] == "SyncBN":
            cfg.MODEL[node][key] = "BN" if gpus == 1 else "naiveSyncBN"


def override(cfg, overrides: Sequence[str]) -> set[str]:
    """Merge KEY VALUE … (or KEY=VALUE) into ``cfg``; returns the keys."""
    words = options.pairs(overrides)
    allowed = options.flat(cfg)
    keys = set(words[::2])
    for key, value in zip(words[::2], words[1::2], strict=True):
        if key not in allowed:
            raise unknown_key(key, allowed)
        if key in ELSEWHERE:
            raise InputError(f"{key} cannot be set to '{value}' here: it is {ELSEWHERE[key]}")
        *groups, leaf = key.split(".")
        node = reduce(getitem, groups, cfg)
        node[leaf] = options.option(allowed[key]).typed(options.bare(value), key)
    image_range.check(cfg)
    return keys


def _check_sampler(cfg) -> None:
    name, key = cfg.DATALOADER.SAMPLER_TRAIN, "DATALOADER.SAMPLER_TRAIN"
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS, key)
    if name == REPEATING and are_semantic(cfg.DATASETS.TRAIN):
        raise InputError(
            f"{key} is '{name}', which repeats images by their objects; "
            f"{', '.join(cfg.DATASETS.TRAIN)} has label images alone: allowed is {ONCE}"
        )


def _check_vitdet(cfg) -> None:
    """The options that ``add_vitdet_options`` adds."""
    solver, jitter, drop_path = cfg.SOLVER, cfg.INPUT.LSJ, cfg.MODEL.BACKBONE.DROP_PATH
    if solver.OPTIMIZER not in OPTIMIZERS:
        raise unknown("optimizer", solver.OPTIMIZER, OPTIMIZERS, "SOLVER.OPTIMIZER")
    if len(solver.BETAS) != 2 or not all(_is_number(x) and 0 <= x < 1 for x in solver.BETAS):
        raise InputError(
            f"SOLVER.BETAS is {tuple(solver.BETAS)}; allowed: two numbers from 0 to below 1"
        )
    if not 0 < solver.LAYER_DECAY <= 1:
        raise InputError(
            f"SOLVER.LAYER_DECAY is {solver.LAYER_DECAY}; allowed: more than 0, up to 1"
        )
    if solver.LAYER_DECAY != 1 and solver.OPTIMIZER == SGD:
        raise InputError(
            f"SOLVER.LAYER_DECAY is {solver.LAYER_DECAY} with SOLVER.OPTIMIZER '{SGD}'; allowed: "
            f"1.0, or SOLVER.OPTIMIZER '{ADAMW}'"
        )
    if not 0 <= drop_path < 1:
        raise InputError(f"MODEL.BACKBONE.DROP_PATH is {drop_path}; allowed: from 0 to below 1")
    low_high = tuple(jitter.SCALE)
    if (
        len(low_high) != 2
        or not all(map(_is_number, low_high))
        or not 0 < low_high[0] <= low_high[1]
    ):
        raise InputError(
            f"INPUT.LSJ.SCALE is {low_high}; allowed: two numbers above 0, the smaller one first"
        )
    padded = cfg.MODEL.BACKBONE.NAME == VITDET
    if jitter.SIZE < 0 or (padded and (jitter.SIZE < 32 or jitter.SIZE % 32)):
        words = (
            "a multiple of 32, to whose square images are padded" if padded else "0 (none) or more"
        )
        raise InputError(f"INPUT.LSJ.SIZE is {jitter.SIZE}; allowed: {words}")
    if padded and cfg.INPUT.MAX_SIZE_TEST > jitter.SIZE:
        raise InputError(
            f"INPUT.MAX_SIZE_TEST is {cfg.INPUT.MAX_SIZE_TEST}; allowed: up to INPUT.LSJ.SIZE, "
            f"{jitter.SIZE}, as images are padded to its square"
        )
    if jitter.SIZE and cfg.INPUT.CROP.ENABLED:
        raise InputError(
            f"INPUT.CROP.ENABLED is True with INPUT.LSJ.SIZE {jitter.SIZE}, which crops; allowed: "
            "one of the two"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(cfg, gpus: int, cuda: bool) -> None:
    solver = cfg.SOLVER
    if cfg.DATASETS.LABELS:
        amount(cfg.DATASETS.LABELS)  # InputError
    if solver.IMS_PER_BATCH < 1 or solver.IMS_PER_BATCH % gpus:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}, which {gpus} GPUs cannot share "
            "evenly; allowed: a multiple of the number of GPUs"
        )
    if solver.MAX_ITER < 1:
        raise InputError(f"SOLVER.MAX_ITER is {solver.MAX_ITER}; allowed: 1 or more")
    steps = list(solver.STEPS) if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" else []
    if solver.MAX_ITER in steps or steps != sorted(set(steps)):
        raise InputError(
            f"SOLVER.STEPS is {tuple(solver.STEPS)} with SOLVER.MAX_ITER {solver.MAX_ITER}; "
            "allowed: increasing numbers below it (those beyond it are never reached)"
        )
    if not solver.BASE_LR > 0:
        raise InputError(f"SOLVER.BASE_LR is {solver.BASE_LR}; allowed: more than 0")
    if cfg.DATALOADER.NUM_WORKERS < 0:
        raise InputError(
            f"DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; allowed: 0 or more"
        )
    if not cfg.DATALOADER.TIMEOUT >= 0:
        raise InputError(f"DATALOADER.TIMEOUT is {cfg.DATALOADER.TIMEOUT}; allowed: 0 or more")
    if cfg.TEST.PRECISE_BN.NUM_ITER < 1:
        raise InputError(
            f"TEST.PRECISE_BN.NUM_ITER is {cfg.TEST.PRECISE_BN.NUM_ITER}; allowed: 1 or more"
        )
    if solver.AMP.DTYPE not in PRECISIONS:
        raise unknown("precision", solver.AMP.DTYPE, PRECISIONS, "SOLVER.AMP.DTYPE")
    _check_sampler(cfg)
    if "OPTIMIZER" in solver:
        _check_vitdet(cfg)
    sigmas, points = cfg.TEST.KEYPOINT_OKS_SIGMAS, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if cfg.MODEL.KEYPOINT_ON and sigmas and len(sigmas) != points:
        raise InputError(
            f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)} numbers; allowed: {points}, one a keypoint"
        )
    if "POINT_HEAD" in cfg.MODEL:
        of_points, of_boxes = cfg.MODEL.POINT_HEAD.NUM_CLASSES, cfg.MODEL.ROI_HEADS.NUM_CLASSES
        if of_points != of_boxes:
            raise InputError(
                f"MODEL.POINT_HEAD.NUM_CLASSES is {of_points} and MODEL.ROI_HEADS.NUM_CLASSES is "
                f"{of_boxes}; allowed: the same"
            )
    windows.of(cfg)  # InputError
    for key in ("TRAIN", "TEST"):
        if not cfg.DATASETS[key]:
            raise InputError(f"DATASETS.{key} is empty; allowed: names of data sets")
    if cuda:
        return
    if cfg.MODEL.DEVICE != "cpu":
        raise InputError(f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}', but there is no CUDA device here")
    for node, key in NORMS:
        if cfg.MODEL[node][key] == "SyncBN":
            raise InputError(
                f"MODEL.{node}.{key} is 'SyncBN', which needs a CUDA device; allowed here: "
                "BN (the same statistics in one process) or naiveSyncBN"
            )
