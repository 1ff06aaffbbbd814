"""The options that classification and dense probes share, and what both check of their devices."""

from collections.abc import Mapping

from fvcore.common.config import CfgNode

from densessl.core import options
from densessl.core.errors import InputError
from densessl.decoding import MAX_PIXELS
from densessl.weight_files.keys import NETWORKS

from .config import FLOAT16, PRECISIONS

BACKBONES = ("resnet18", "resnet50", "resnet101", "vit_tiny", "vit_small", "vit_base")
# that MODEL.BACKBONE may be, too
OTHERS = (*(name for name in NETWORKS if name not in BACKBONES), "timm/NAME")
SHARED = {  # names that Detectron2 has mean here what they mean there
    "SEED": (0, ">= 0"),  # all that is random is a function of it and the step
    "OUTPUT_DIR": "output",
    "MODEL.WEIGHTS": "",  # a converted file; empty: a random start
    "MODEL.DEVICE": "cuda",
    # auto: that of the weights, of a random start resnet50; or a name
    "MODEL.BACKBONE": ("auto", ("auto", *BACKBONES, *OTHERS)),
    "MODEL.CHANNELS_LAST": False,  # activations as NHWC: faster with AMP on GPUs, the same model
    "DATALOADER.NUM_WORKERS": (8, ">= 0"),  # of each process; any number gives the same numbers
    # seconds that a batch may take before the trial stops; 0: no limit
    "DATALOADER.TIMEOUT": (120, ">= 0"),
    # of known data sets: the training images that keep their labels, as --labels says, and by
    # which --data-seed; empty: all
    "DATASETS.LABELS": "",
    "DATASETS.LABELS_SEED": (0, ">= 0"),
    # not 8 bits: LOW,HIGH become black, white; auto: a sample; "": the weights'
    "INPUT.RANGE": "",
    # of an image; a larger one is read at reduced scale; 0: no limit
    "INPUT.MAX_PIXELS": (MAX_PIXELS, ">= 0"),
    # of your own images, others than 3 read as stored; 0: as the weights take them
    "INPUT.CHANNELS": (0, ">= 0"),
    "INPUT.CHANNEL_FILES": "",  # each channel in a file of its own, as --channel-files says
    "SOLVER.AMP.ENABLED": False,  # the backbone in half precision
    # float16, whose loss is scaled, or bfloat16: GPUs from Ampere on, and CPUs
    "SOLVER.AMP.DTYPE": (FLOAT16, PRECISIONS),
}


def amp(cfg) -> str:
    """Of any protocol's config, as a line on a run says it."""
    return f"AMP {cfg.SOLVER.AMP.DTYPE}" if cfg.SOLVER.AMP.ENABLED else "AMP off"


def amp_off_on_cpu(cfg) -> None:
    """Leave out what a config has for GPUs: float16, which takes a CPU ten times as long."""
    if cfg.SOLVER.AMP.DTYPE == FLOAT16:
        cfg.SOLVER.AMP.ENABLED = False


def config_of(declared: Mapping[str, options.Option]) -> CfgNode:
    """A config with every option at its default."""
    return CfgNode(options.nested({name: each.default for name, each in declared.items()}))


def check(cfg: CfgNode, declared: Mapping[str, options.Option], cuda: bool) -> None:
    """InputError for a value that cannot be, and a device that is not here."""
    options.check(cfg, declared)
    device = cfg.MODEL.DEVICE
    if device not in ("cpu", "cuda") or (device == "cuda" and not cuda):
        here = "cpu, cuda" if cuda else "cpu: there is no CUDA device here"
        raise InputError(f"MODEL.DEVICE is '{device}'; allowed: {here}")
