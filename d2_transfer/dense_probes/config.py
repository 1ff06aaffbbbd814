"""Every option of the dense probes: its default, one line on its meaning, its range."""

from fractions import Fraction

from fvcore.common.config import CfgNode

from densessl.configs import FOLDER
from densessl.core import options
from densessl.core.errors import InputError
from densessl.core.units import many

from .. import option_rules, windows
from ..option_rules import SHARED
from ..protocols import PROBES

MINI = FOLDER / "transfer" / "mini_dense_probes.yaml"
OPTIONS = {
    **SHARED,
    "TASK": ("", tuple(PROBES)),  # what a trial does
    "DATASETS.TRAIN": "",  # a data set of label images: voc_2012_aug_semseg_train, …
    "DATASETS.TEST": "",
    "DATASETS.TRAIN_LIST": "",  # of these images alone: a text file of names; empty: all
    "DATASETS.TEST_LIST": "",
    "DATASETS.CUSTOM": "",  # hashes of the user's own images and label images (custom_semseg)
    # height, width that the network sees: whole images (or windows), resized
    "INPUT.SIZE": ((512, 512), ">= 16, whole"),
    # of that: bilinear, bicubic; averaged where it shrinks
    "INPUT.INTERPOLATION": ("bilinear", ("bilinear", "bicubic")),
    # last; all; or res2 … res5, block1 … block12: joined channel-wise
    "FEATURES.LEVELS": (("last",),),
    # that are learnt from (overcluster: clustered), at most, by the seed
    "FEATURES.POSITIONS": (262144, ">= 1"),
    "FEATURES.CACHE": "",  # folder of the features; empty: features/ in the run's folder
    # each channel less its mean over its deviation, as in DINOv2's probe
    "LINEAR.BATCH_NORM": True,
    "LINEAR.L2": (1e-4, ">= 0"),  # L2 on the weights, beside the mean cross entropy
    "LINEAR.STEPS": (300, ">= 1"),  # of L-BFGS, at most
    "KNN.K": (30, ">= 1"),
    "KNN.TEMPERATURE": (0.02, "> 0"),  # a neighbour weighs exp(cosine / τ)
    # of the training images; mIoU is the last one's
    "KNN.SHARES": (("1/128", "1/64", "1/8", "1/1"),),
    # beside as many as classes: more clusters, several of which may be a class
    "CLUSTERS.COUNTS": ((), ">= 1, whole"),
    "CLUSTERS.STARTS": (5, ">= 1"),  # of K-means by the seed; the tightest is taken
    "TEST.IMS_PER_BATCH": (32, ">= 1"),  # images of a forward pass, of each process
    # windows of all images, each resized to INPUT.SIZE, in place of whole ones; what is predicted
    # is averaged where they overlap
    "TEST.SLIDING_WINDOW.ENABLED": False,
    "TEST.SLIDING_WINDOW.SIZE": (769, ">= 1"),  # of a side, in pixels of the image
    "TEST.SLIDING_WINDOW.STRIDE": (513, ">= 1"),  # from one to the next; at most the size
    # test images whose predictions are kept as pictures; not of overcluster
    "TEST.PREDICTIONS": (0, ">= 0"),
}
DECLARED = options.declared(OPTIONS)
C = option_rules.config_of(DECLARED)


def check(cfg: CfgNode, gpus: int, cuda: bool) -> None:
    """InputError for the first value that cannot be, before any work; any ``gpus`` can share it."""
    option_rules.check(cfg, DECLARED, cuda)
    if len(cfg.INPUT.SIZE) != 2:
        raise InputError(f"INPUT.SIZE is {cfg.INPUT.SIZE}; allowed: (height, width) in pixels")
    if not cfg.FEATURES.LEVELS:
        raise InputError("FEATURES.LEVELS is empty; allowed: last, all, or names of levels")
    windows.of(cfg)  # InputError
    _check_shares(cfg.KNN.SHARES)
    for key in ("TRAIN", "TEST"):
        if not cfg.DATASETS[key]:
            raise InputError(f"DATASETS.{key} is empty; allowed: the name of a data set")


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


def _cut(cfg: CfgNode) -> str:
    """What the network sees, if not whole images."""
    window = windows.of(cfg)
    return f" of windows of {window[0]} px every {window[1]}" if window else ""


def describe(cfg: CfgNode, processes: int) -> str:
    """One line on what is done."""
    where = f"{many(processes, 'process')} on {cfg.MODEL.DEVICE}"
    height, width = cfg.INPUT.SIZE
    most = f"at most {cfg.FEATURES.POSITIONS} positions"
    text = f"{where}, {width}×{height} px{_cut(cfg)}"
    text += f", levels {', '.join(cfg.FEATURES.LEVELS)}, {most}"
    if cfg.TASK == "linear_semseg":
        norm = "with" if cfg.LINEAR.BATCH_NORM else "without"
        return f"{text}, {norm} batch norm, L2 {cfg.LINEAR.L2:g}"
    if cfg.TASK == "knn_semseg":
        shares = ", ".join(map(str, cfg.KNN.SHARES))
        return f"{text}, k {cfg.KNN.K}, temperature {cfg.KNN.TEMPERATURE:g}, images {shares}"
    more = "".join(f", {count}" for count in cfg.CLUSTERS.COUNTS)
    return f"{text}, clusters: as many as classes{more}; {cfg.CLUSTERS.STARTS} starts"
