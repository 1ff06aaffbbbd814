"""Every option of the dense probes: its default, one line on its meaning, its range.

Names that Detectron2 and classification have mean here what they mean there.
"""

from fractions import Fraction
from functools import partial

from fvcore.common.config import CfgNode

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.decoding import MAX_PIXELS

from ..classification.config import BACKBONES
from ..option_rules import Rules, add, check_device, check_values
from ..protocols import PROBES

MINI = FOLDER / "transfer" / "mini_dense_probes.yaml"

C = CfgNode()
C.TASK = ""  # linear_semseg, knn_semseg, overcluster: what a trial does
C.SEED = 0  # all that is random is a function of it
C.OUTPUT_DIR = "output"

C.MODEL = CfgNode()
C.MODEL.WEIGHTS = ""  # a converted file; empty: a random start
C.MODEL.DEVICE = "cuda"
C.MODEL.BACKBONE = "auto"  # auto: that of the weights, of a random start resnet50; or a name
C.MODEL.CHANNELS_LAST = False  # activations as NHWC: faster with AMP on GPUs, the same model

C.DATASETS = CfgNode()
C.DATASETS.TRAIN = ""  # a data set of label images: voc_2012_aug_semseg_train, …
C.DATASETS.TEST = ""
C.DATASETS.TRAIN_LIST = ""  # of these images alone: a text file of names; empty: all
C.DATASETS.TEST_LIST = ""
C.DATASETS.CUSTOM = ""  # hashes of the user's own images and label images (custom_semseg)

C.DATALOADER = CfgNode()
C.DATALOADER.NUM_WORKERS = 8  # of each process; any number gives the same numbers
C.DATALOADER.TIMEOUT = 120  # seconds that a batch may take before the trial stops; 0: no limit

C.INPUT = CfgNode()
C.INPUT.SIZE = (512, 512)  # height, width that the network sees: whole images, resized
C.INPUT.INTERPOLATION = "bilinear"  # of that: bilinear, bicubic; averaged where it shrinks
C.INPUT.RANGE = ""  # not 8 bits: LOW,HIGH become black, white; auto: a sample; "": the weights'
C.INPUT.MAX_PIXELS = MAX_PIXELS  # of an image; a larger one is read at reduced scale; 0: no limit

C.FEATURES = CfgNode()
C.FEATURES.LEVELS = ("last",)  # last; all; or res2 … res5, block1 … block12: joined channel-wise
C.FEATURES.POSITIONS = 262144  # that are learnt from (overcluster: clustered), at most, by the seed
C.FEATURES.CACHE = ""  # folder of the features; empty: features/ in the run's folder

C.LINEAR = CfgNode()
C.LINEAR.BATCH_NORM = True  # each channel less its mean over its deviation, as in DINOv2's probe
C.LINEAR.L2 = 1e-4  # L2 on the weights, beside the mean cross entropy
C.LINEAR.STEPS = 300  # of L-BFGS, at most

C.KNN = CfgNode()
C.KNN.K = 30
C.KNN.TEMPERATURE = 0.02  # a neighbour weighs exp(cosine / τ)
C.KNN.SHARES = ("1/128", "1/64", "1/8", "1/1")  # of the training images; mIoU is the last one's

C.CLUSTERS = CfgNode()
C.CLUSTERS.COUNTS = ()  # beside as many as classes: more clusters, several of which may be a class
C.CLUSTERS.STARTS = 5  # of K-means by the seed; the tightest is taken

C.SOLVER = CfgNode()
C.SOLVER.AMP = CfgNode()
C.SOLVER.AMP.ENABLED = False  # the backbone in float16

C.TEST = CfgNode()
C.TEST.IMS_PER_BATCH = 32  # images of a forward pass, of each process
C.TEST.PREDICTIONS = 0  # test images whose predictions are kept as pictures; not of overcluster

CHOICES = {
    "TASK": tuple(PROBES),
    "MODEL.BACKBONE": ("auto", *BACKBONES),
    "INPUT.INTERPOLATION": ("bilinear", "bicubic"),
}
RULES: Rules = {}
_rule = partial(add, RULES)

_rule("0 or more", lambda v: v >= 0, "SEED", "DATALOADER.NUM_WORKERS", "DATALOADER.TIMEOUT")
_rule("0 or more", lambda v: v >= 0, "INPUT.MAX_PIXELS", "LINEAR.L2", "TEST.PREDICTIONS")
_rule("1 or more", lambda v: v >= 1, "TEST.IMS_PER_BATCH", "FEATURES.POSITIONS", "KNN.K")
_rule("1 or more", lambda v: v >= 1, "LINEAR.STEPS", "CLUSTERS.STARTS", "CLUSTERS.COUNTS")
_rule("above 0", lambda v: v > 0, "KNN.TEMPERATURE")
_rule("16 or more", lambda v: v >= 16, "INPUT.SIZE")


def check(cfg: CfgNode, gpus: int, cuda: bool) -> None:
    """InputError for the first value that cannot be, before any work; any ``gpus`` can share it."""
    check_values(cfg, CHOICES, RULES)
    size = cfg.INPUT.SIZE
    if len(size) != 2 or not all(isinstance(edge, int) for edge in size):
        raise InputError(f"INPUT.SIZE is {size}; allowed: (height, width) in whole pixels")
    if not all(isinstance(count, int) for count in cfg.CLUSTERS.COUNTS):
        raise InputError(f"CLUSTERS.COUNTS is {cfg.CLUSTERS.COUNTS}; allowed: whole numbers")
    if not cfg.FEATURES.LEVELS:
        raise InputError("FEATURES.LEVELS is empty; allowed: last, all, or names of levels")
    _check_shares(cfg.KNN.SHARES)
    for key in ("TRAIN", "TEST"):
        if not cfg.DATASETS[key]:
            raise InputError(f"DATASETS.{key} is empty; allowed: the name of a data set")
    check_device(cfg, cuda)


def _check_shares(shares) -> None:
    try:
        parts = [Fraction(share) for share in shares]
    except (ValueError, TypeError, ZeroDivisionError):
        parts = [Fraction(0)]
    if not parts or any(not 0 < part <= 1 for part in parts):
        raise InputError(
            f"KNN.SHARES is {tuple(shares)}; allowed: shares of the training images above 0 and at "
            "most 1, such as ('1/8', '1/1')"
        )


def shrink(cfg: CfgNode) -> None:
    """``--mini``: lay ``mini_dense_probes.yaml`` over ``cfg``."""
    cfg.merge_from_file(str(MINI))


def describe(cfg: CfgNode, processes: int) -> str:
    """One line on what is done."""
    where = f"{processes} process{'es' if processes > 1 else ''} on {cfg.MODEL.DEVICE}"
    height, width = cfg.INPUT.SIZE
    most = f"at most {cfg.FEATURES.POSITIONS} positions"
    text = f"{where}, {width}×{height} px, levels {', '.join(cfg.FEATURES.LEVELS)}, {most}"
    if cfg.TASK == "linear_semseg":
        norm = "with" if cfg.LINEAR.BATCH_NORM else "without"
        return f"{text}, {norm} batch norm, L2 {cfg.LINEAR.L2:g}"
    if cfg.TASK == "knn_semseg":
        shares = ", ".join(map(str, cfg.KNN.SHARES))
        return f"{text}, k {cfg.KNN.K}, temperature {cfg.KNN.TEMPERATURE:g}, images {shares}"
    more = "".join(f", {count}" for count in cfg.CLUSTERS.COUNTS)
    return f"{text}, clusters: as many as classes{more}; {cfg.CLUSTERS.STARTS} starts"
