"""Checkpoint layouts, key mapping, the proof: any known checkpoint to weights."""

from .conversion import Report, convert
from .detector import check_detector_config
from .prove import ProofFailed, Stage, prove
from .weights import read_checkpoint, read_weights

__all__ = [
    "ProofFailed",
    "Report",
    "Stage",
    "check_detector_config",
    "convert",
    "prove",
    "read_checkpoint",
    "read_weights",
]
