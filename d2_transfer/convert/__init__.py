"""Any known checkpoint to weights, with the proof. What reads the files is ``weight_files``."""

import importlib
import sys

from weight_files.reading import read_checkpoint

from .conversion import convert
from .detector import check_detector_config
from .prove import ProofFailed, Stage, prove
from .prove_timm import prove_timm
from .prove_vit import prove_vit
from .report import Report
from .weights import read_weights

__all__ = [
    "ProofFailed",
    "Report",
    "Stage",
    "check_detector_config",
    "convert",
    "prove",
    "prove_timm",
    "prove_vit",
    "read_checkpoint",
    "read_weights",
]

# The modules that read files were here once: their old names stay, and mean the same modules.
for _name in (
    *("arrays", "complete", "facts", "keys", "layouts", "reading", "recognise", "safetensors"),
    *("torchfile", "unknown", "unpickle", "vit"),
):
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = importlib.import_module(
        f"weight_files.{_name}"
    )
