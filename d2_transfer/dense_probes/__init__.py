"""Dense probes: frozen features of positions → a linear layer, neighbours or clusters → mIoU."""

from densessl.core.lazy import lazily

from .table import NAMES, OWN, TASKS

__all__ = [
    "NAMES",
    "OWN",
    "TASKS",
    "check_data",
    "describe",
    "prepare",
    "read_own",
    "resolve",
    "run_trial",
    "training_files",
]

_HOME = {
    "check_data": "data",
    "describe": "configuration",
    "prepare": "trial",
    "read_own": "own",
    "resolve": "configuration",
    "run_trial": "trial",
    "training_files": "data",
}
__getattr__ = lazily(__name__, _HOME)  # a list of protocols needs no torch
