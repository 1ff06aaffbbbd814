"""Any known checkpoint to weights, with the proof. What reads the files is ``weight_files``."""

from densessl.weight_files.reading import read_checkpoint

from .conversion import convert
from .prove import ProofFailed, Stage, prove
from .prove_timm import prove_network, prove_timm, prove_vit
from .report import Report
from .weights import check_detector_config, read_weights, resnet_options

__all__ = [
    "ProofFailed",
    "Report",
    "Stage",
    "check_detector_config",
    "convert",
    "prove",
    "prove_network",
    "prove_timm",
    "prove_vit",
    "read_checkpoint",
    "read_weights",
    "resnet_options",
]
