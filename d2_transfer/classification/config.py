"""Every option of the classification protocols: its default, one line on its meaning, its range,
how a miniature has it, and a line on what is done.

Names that Detectron2 has mean here what they mean there.
"""

from functools import partial

from fvcore.common.config import CfgNode

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.decoding import MAX_PIXELS

from ..option_rules import Rules, add, check_device, check_values

TASKS = ("knn", "linear", "finetune")
SEARCHED = ("BASE_LR", "WEIGHT_DECAY", "HEAD_LR_FACTOR")
MINI = FOLDER / "transfer" / "mini_classification.yaml"

C = CfgNode()
C.TASK = ""  # knn, linear, finetune: what a trial does
C.SEED = 0  # all that is random is a function of it and the step
C.OUTPUT_DIR = "output"

C.MODEL = CfgNode()
C.MODEL.WEIGHTS = ""  # a converted file; empty: a random start
C.MODEL.DEVICE = "cuda"
C.MODEL.BACKBONE = "auto"  # auto: that of the weights, of a random start resnet50; or a name
C.MODEL.NORM = "SyncBN"  # finetune: batch norm's statistics over all processes, or BN: each its own
C.MODEL.CHANNELS_LAST = False  # activations as NHWC: faster with AMP on GPUs, the same model

C.DATASETS = CfgNode()
C.DATASETS.NAME = "folder"  # folder, cifar10, cifar100, cub200, cars, aircraft, pets, voc_objects
C.DATASETS.FOLDER = "imagenet"  # folder: below the data sets' folder, holds TRAIN and VAL
C.DATASETS.TRAIN = "train"  # of class folders
C.DATASETS.VAL = "val"
C.DATASETS.CLASSES = ""  # folder: these alone: imagenet100, or a text file of one a line
C.DATASETS.LIST = ""  # the labelled training images: a text file of names; "seeded": drawn
C.DATASETS.SHARE = 1.0  # of each class that "seeded" draws, at least one image

C.DATALOADER = CfgNode()
C.DATALOADER.NUM_WORKERS = 8  # of each process; any number gives the same numbers
C.DATALOADER.TIMEOUT = 120  # seconds that a batch may take before the trial stops; 0: no limit

C.INPUT = CfgNode()
C.INPUT.SIZE = 224  # side of the square that the network sees
C.INPUT.RESIZE = 256  # evaluation: the shorter side before the centre is cut out
C.INPUT.INTERPOLATION = "bicubic"  # of that: bicubic (DINO, SCFS), bilinear (MoCo, VISSL)
C.INPUT.RANGE = ""  # not 8 bits: LOW,HIGH become black, white; auto: a sample; "": the weights'
C.INPUT.MAX_PIXELS = MAX_PIXELS  # of an image; a larger one is read at reduced scale; 0: no limit
C.INPUT.CROP_SCALE = (0.08, 1.0)  # training: area of the random crop over the image's

C.SOLVER = CfgNode()
C.SOLVER.EPOCHS = 100.0
C.SOLVER.MAX_ITER = 0  # steps instead of EPOCHS; 0: EPOCHS
C.SOLVER.IMS_PER_BATCH = 256  # over all processes
C.SOLVER.BASE_LR = 0.1  # at REFERENCE_BATCH; scaled linearly with IMS_PER_BATCH
C.SOLVER.REFERENCE_BATCH = 256
C.SOLVER.SWEEP = ()  # linear: more rates, each with a classifier of its own in the same pass
C.SOLVER.MOMENTUM = 0.9
C.SOLVER.NESTEROV = False
C.SOLVER.WEIGHT_DECAY = 0.0
C.SOLVER.HEAD_LR_FACTOR = 1.0  # finetune: of the new layer's rate over the backbone's
C.SOLVER.SCHEDULE = "cosine"  # cosine to 0; step: times GAMMA at STEPS
C.SOLVER.STEPS = (60.0, 80.0)  # epochs
C.SOLVER.GAMMA = 0.1
C.SOLVER.PER = "epoch"  # the schedule moves per: epoch, step
C.SOLVER.CHECKPOINT_PERIOD = 1000  # steps between checkpoints
C.SOLVER.AMP = CfgNode()
C.SOLVER.AMP.ENABLED = False  # the backbone in float16

C.SEARCH = CfgNode()  # finetune: every combination trains once without HELD_OUT, the best of it all
C.SEARCH.BASE_LR = ()  # (): SOLVER.BASE_LR alone
C.SEARCH.WEIGHT_DECAY = ()
C.SEARCH.HEAD_LR_FACTOR = ()
C.SEARCH.HELD_OUT = 0.2  # of the training images of each class: they choose, nothing else does

C.LINEAR = CfgNode()
C.LINEAR.VIT_FEATURES = "dino"  # dino: the class tokens of the last 4 blocks (vit_base: of the
# last, with the mean patch token); last: the last class token

C.KNN = CfgNode()
C.KNN.KS = (10, 20, 100, 200)
C.KNN.K = 20  # whose accuracy is knn/top1
C.KNN.TEMPERATURE = 0.07  # a neighbour weighs exp(cosine / τ)
C.KNN.STAGES = ("last",)  # last; all; or res2 … res5, block1 … block12; the last is knn/top1's
C.KNN.CACHE = ""  # folder of the features; empty: features/ in the run's folder

C.TEST = CfgNode()
C.TEST.EVAL_PERIOD = 1.0  # epochs between evaluations; 0: the end alone, which always is
C.TEST.IMS_PER_BATCH = 256  # of each process

BACKBONES = ("resnet18", "resnet50", "resnet101", "vit_tiny", "vit_small", "vit_base")
DATASETS = ("folder", "cifar10", "cifar100", "cub200", "cars", "aircraft", "pets", "voc_objects")
CHOICES = {
    "TASK": TASKS,
    "MODEL.BACKBONE": ("auto", *BACKBONES),
    "MODEL.NORM": ("BN", "SyncBN"),
    "DATASETS.NAME": DATASETS,
    "INPUT.INTERPOLATION": ("bicubic", "bilinear"),
    "SOLVER.SCHEDULE": ("cosine", "step"),
    "SOLVER.PER": ("epoch", "step"),
    "LINEAR.VIT_FEATURES": ("dino", "last"),
}
RULES: Rules = {}
_rule = partial(add, RULES)

_rule("0 or more", lambda v: v >= 0, "SEED", "DATALOADER.NUM_WORKERS", "SOLVER.MAX_ITER")
_rule("0 or more", lambda v: v >= 0, "DATALOADER.TIMEOUT")
_rule("0 or more", lambda v: v >= 0, "SOLVER.WEIGHT_DECAY", "SEARCH.WEIGHT_DECAY")
_rule("0 or more", lambda v: v >= 0, "TEST.EVAL_PERIOD", "INPUT.MAX_PIXELS")
_rule("1 or more", lambda v: v >= 1, "SOLVER.IMS_PER_BATCH", "SOLVER.REFERENCE_BATCH")
_rule("1 or more", lambda v: v >= 1, "SOLVER.CHECKPOINT_PERIOD", "TEST.IMS_PER_BATCH")
_rule("1 or more", lambda v: v >= 1, "KNN.KS", "KNN.K", "INPUT.RESIZE")
_rule("above 0", lambda v: v > 0, "SOLVER.EPOCHS", "SOLVER.BASE_LR", "SOLVER.SWEEP")
_rule("above 0", lambda v: v > 0, "SOLVER.HEAD_LR_FACTOR", "SOLVER.GAMMA", "SOLVER.STEPS")
_rule("above 0", lambda v: v > 0, "SEARCH.BASE_LR", "SEARCH.HEAD_LR_FACTOR")
_rule("above 0", lambda v: v > 0, "KNN.TEMPERATURE")
_rule("from 0 to below 1", lambda v: 0 <= v < 1, "SOLVER.MOMENTUM")
_rule("between 0 and 1, both excluded", lambda v: 0 < v < 1, "SEARCH.HELD_OUT")
_rule("above 0 and at most 1", lambda v: 0 < v <= 1, "DATASETS.SHARE", "INPUT.CROP_SCALE")
_rule("16 or more", lambda v: v >= 16, "INPUT.SIZE")


def check(cfg: CfgNode, gpus: int, cuda: bool) -> None:
    """InputError for the first value that cannot be, before any work."""
    check_values(cfg, CHOICES, RULES)
    solver = cfg.SOLVER
    if solver.IMS_PER_BATCH % gpus:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}, which {gpus} processes cannot share "
            "evenly; allowed: a multiple of their number"
        )
    if list(solver.STEPS) != sorted(set(solver.STEPS)):
        raise InputError(f"SOLVER.STEPS is {solver.STEPS}; allowed: epochs, each later than before")
    if len(cfg.INPUT.CROP_SCALE) != 2 or cfg.INPUT.CROP_SCALE[0] > cfg.INPUT.CROP_SCALE[1]:
        raise InputError(f"INPUT.CROP_SCALE is {cfg.INPUT.CROP_SCALE}; allowed: (least, most)")
    if cfg.INPUT.RESIZE < cfg.INPUT.SIZE:
        raise InputError(
            f"INPUT.RESIZE is {cfg.INPUT.RESIZE}, less than INPUT.SIZE {cfg.INPUT.SIZE}: the "
            "centre could not be cut out"
        )
    if not all(isinstance(k, int) for k in cfg.KNN.KS) or cfg.KNN.K not in cfg.KNN.KS:
        raise InputError(
            f"KNN.KS is {cfg.KNN.KS} with KNN.K {cfg.KNN.K}; allowed: whole numbers, K among them"
        )
    if not cfg.KNN.STAGES:
        raise InputError("KNN.STAGES is empty; allowed: last, all, or names of stages")
    check_device(cfg, cuda)
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
    where = f"{processes} process{'es' if processes > 1 else ''} on {cfg.MODEL.DEVICE}"
    image = f"{cfg.INPUT.SIZE} px"
    amp = f"AMP {'on' if solver.AMP.ENABLED else 'off'}"
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
