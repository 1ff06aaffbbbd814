"""Every option of the classification protocols: its default, one line on its meaning, its range,
how a miniature has it, and a line on what is done.
"""

from fvcore.common.config import CfgNode

from densessl.configs import FOLDER
from densessl.core import options
from densessl.core.errors import InputError
from densessl.core.units import many

from .. import option_rules
from ..option_rules import SHARED

TASKS = ("knn", "linear", "finetune")
DATASETS = (
    "folder",
    "own",
    "cifar10",
    "cifar100",
    "cub200",
    "cars",
    "aircraft",
    "pets",
    "voc_objects",
)
SEARCHED = ("BASE_LR", "WEIGHT_DECAY", "HEAD_LR_FACTOR")
MINI = FOLDER / "transfer" / "mini_classification.yaml"
OPTIONS = {
    **SHARED,
    "TASK": ("", TASKS),  # what a trial does
    # finetune: batch norm's statistics over all processes, or BN: each its own
    "MODEL.NORM": ("SyncBN", ("BN", "SyncBN")),
    "DATASETS.NAME": ("folder", DATASETS),
    # folder: below the data sets' folder, holds TRAIN and VAL; own: hashes of the user's own data
    "DATASETS.FOLDER": "imagenet",
    "DATASETS.TRAIN": "train",  # of class folders
    "DATASETS.VAL": "val",
    "DATASETS.CLASSES": "",  # folder: these alone: imagenet100, or a text file of one a line
    # the labelled training images: a text file of names; "seeded": drawn
    "DATASETS.LIST": "",
    # of each class that "seeded" draws, at least one image
    "DATASETS.SHARE": (1.0, "> 0, <= 1"),
    "INPUT.SIZE": (224, ">= 16"),  # side of the square that the network sees
    "INPUT.RESIZE": (256, ">= 1"),  # evaluation: the shorter side before the centre is cut out
    # of that: bicubic (DINO, SCFS), bilinear (MoCo, VISSL)
    "INPUT.INTERPOLATION": ("bicubic", ("bicubic", "bilinear")),
    # training: area of the random crop over the image's
    "INPUT.CROP_SCALE": ((0.08, 1.0), "> 0, <= 1"),
    "SOLVER.EPOCHS": (100.0, "> 0"),
    "SOLVER.MAX_ITER": (0, ">= 0"),  # steps instead of EPOCHS; 0: EPOCHS
    "SOLVER.IMS_PER_BATCH": (256, ">= 1"),  # over all processes
    "SOLVER.BASE_LR": (0.1, "> 0"),  # at REFERENCE_BATCH; scaled linearly with IMS_PER_BATCH
    "SOLVER.REFERENCE_BATCH": (256, ">= 1"),
    # linear: more rates, each with a classifier of its own in the same pass
    "SOLVER.SWEEP": ((), "> 0"),
    "SOLVER.MOMENTUM": (0.9, ">= 0, < 1"),
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": (0.0, ">= 0"),
    "SOLVER.HEAD_LR_FACTOR": (1.0, "> 0"),  # finetune: the new layer's rate over the backbone's
    "SOLVER.SCHEDULE": ("cosine", ("cosine", "step")),  # cosine to 0; step: times GAMMA at STEPS
    "SOLVER.STEPS": ((60.0, 80.0), "> 0, rising"),  # epochs
    "SOLVER.GAMMA": (0.1, "> 0"),
    "SOLVER.PER": ("epoch", ("epoch", "step")),  # the schedule moves per: epoch, step
    "SOLVER.CHECKPOINT_PERIOD": (1000, ">= 1"),  # steps between checkpoints
    # finetune: every combination trains once without HELD_OUT, the best of it all; (): SOLVER's
    "SEARCH.BASE_LR": ((), "> 0"),
    "SEARCH.WEIGHT_DECAY": ((), ">= 0"),
    "SEARCH.HEAD_LR_FACTOR": ((), "> 0"),
    # of the training images of each class: they choose, nothing else does
    "SEARCH.HELD_OUT": (0.2, "> 0, < 1"),
    # dino: the class tokens of the last 4 blocks (vit_base: of the last, with the mean patch
    # token); last: the last class token
    "LINEAR.VIT_FEATURES": ("dino", ("dino", "last")),
    "KNN.KS": ((10, 20, 100, 200), ">= 1, whole"),
    "KNN.K": (20, ">= 1"),  # whose accuracy is knn/top1
    "KNN.TEMPERATURE": (0.07, "> 0"),  # a neighbour weighs exp(cosine / τ)
    # last; all; or res2 … res5, block1 … block12; the last is knn/top1's
    "KNN.STAGES": (("last",),),
    "KNN.CACHE": "",  # folder of the features; empty: features/ in the run's folder
    # epochs between evaluations; 0: the end alone, which always is
    "TEST.EVAL_PERIOD": (1.0, ">= 0"),
    "TEST.IMS_PER_BATCH": (256, ">= 1"),  # of each process
}
DECLARED = options.declared(OPTIONS)
C = option_rules.config_of(DECLARED)


def check(cfg: CfgNode, gpus: int, cuda: bool) -> None:
    """InputError for the first value that cannot be, before any work."""
    option_rules.check(cfg, DECLARED, cuda)
    if cfg.SOLVER.IMS_PER_BATCH % gpus:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {gpus} processes cannot "
            "share evenly; allowed: a multiple of their number"
        )
    if len(cfg.INPUT.CROP_SCALE) != 2 or cfg.INPUT.CROP_SCALE[0] > cfg.INPUT.CROP_SCALE[1]:
        raise InputError(f"INPUT.CROP_SCALE is {cfg.INPUT.CROP_SCALE}; allowed: (least, most)")
    if cfg.INPUT.RESIZE < cfg.INPUT.SIZE:
        raise InputError(
            f"INPUT.RESIZE is {cfg.INPUT.RESIZE}, less than INPUT.SIZE {cfg.INPUT.SIZE}: the "
            "centre could not be cut out"
        )
    if cfg.KNN.K not in cfg.KNN.KS:
        raise InputError(f"KNN.KS is {cfg.KNN.KS} with KNN.K {cfg.KNN.K}; K must be among them")
    if not cfg.KNN.STAGES:
        raise InputError("KNN.STAGES is empty; allowed: last, all, or names of stages")
    if cfg.MODEL.DEVICE == "cpu" and cfg.MODEL.NORM == "SyncBN":
        raise InputError("MODEL.NORM is 'SyncBN', which needs a CUDA device; allowed here: BN")


def shrink(cfg: CfgNode) -> None:
    """``--mini``: lay ``mini_classification.yaml`` over ``cfg``, and shrink the rest with it.

    ImageNet's place is taken by the objects of VOC's sets, which scenes have too. Of few images a
    larger share is labelled, the fourth root, drawn by the seed.
    """
    full = cfg.clone()
    cfg.merge_from_file(str(MINI))
    if (full.DATASETS.NAME, full.DATASETS.FOLDER) == ("folder", "imagenet"):
        cfg.DATASETS.NAME = "voc_objects"
    if cfg.TASK == "linear":
        cfg.SOLVER.MAX_ITER *= 3  # a step on a frozen backbone takes a third of the time
    if not full.SEARCH.BASE_LR:
        cfg.SEARCH.BASE_LR = ()
    if full.DATASETS.LIST:
        cfg.DATASETS.LIST, cfg.DATASETS.SHARE = "seeded", round(full.DATASETS.SHARE**0.25, 2)


def describe(cfg: CfgNode, processes: int) -> str:
    """One line on what is done."""
    solver = cfg.SOLVER
    where = f"{many(processes, 'process')} on {cfg.MODEL.DEVICE}"
    image = f"{cfg.INPUT.SIZE} px"
    amp = option_rules.amp(cfg)
    if cfg.TASK == "knn":
        ks = ", ".join(map(str, cfg.KNN.KS))
        stages = ", ".join(cfg.KNN.STAGES)
        return (
            f"{where}, {image}, k {ks}, temperature {cfg.KNN.TEMPERATURE:g}, stage {stages}, {amp}"
        )
    scale = solver.IMS_PER_BATCH / solver.REFERENCE_BATCH
    length = f"{solver.MAX_ITER} steps" if solver.MAX_ITER else f"{solver.EPOCHS:g} epochs"
    curve = "a cosine" if solver.SCHEDULE == "cosine" else f"steps at epochs {_list(solver.STEPS)}"
    text = (
        f"{where}, {image}, {solver.IMS_PER_BATCH} images a step, {length}, learning rate "
        f"{solver.BASE_LR * scale:g} = {solver.BASE_LR:g} x {solver.IMS_PER_BATCH}/"
        f"{solver.REFERENCE_BATCH} with {curve}, {amp}"
    )
    if cfg.TASK == "linear" and solver.SWEEP:
        text += f"; beside it rates {_list(solver.SWEEP)} (times the same) in the same pass"
    if tried := combinations(cfg):
        text += (
            f"; first {tried} settings are tried, each trained without {cfg.SEARCH.HELD_OUT:.0%} "
            "of the training images, which choose"
        )
    return text


def combinations(cfg: CfgNode) -> int:
    """How many settings a search tries; 0: it does not take place."""
    grids = [cfg.SEARCH[name] for name in SEARCHED]
    if cfg.TASK != "finetune" or not any(grids):
        return 0
    count = 1
    for grid in grids:
        count *= max(len(grid), 1)
    return count


def _list(values) -> str:
    return ", ".join(f"{value:g}" for value in values)
