"""Checkpoint layouts, key mapping, the proof: any known checkpoint to weights."""

from .conversion import Report, convert
from .detector import check_detector_config
from .prove import ProofFailed, Stage, prove
from .prove_vit import prove_vit
from .weights import read_checkpoint, read_weights

__all__ = [
    "ProofFailed",
    "Report",
    "Stage",
    "check_detector_config",
    "convert",
    "prove",
    "prove_vit",
    "read_checkpoint",
    "read_weights",
]
