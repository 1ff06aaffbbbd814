"""Dense probes: frozen features of positions → a linear layer, neighbours or clusters → mIoU."""

import importlib

from .table import NAMES, OWN, TASKS

__all__ = [
    "NAMES",
    "OWN",
    "PROTOCOLS",
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


def __getattr__(name: str):
    """What takes long to import, once it is asked for: a list of protocols needs no torch."""
    if name == "PROTOCOLS":  # d2_transfer.protocols lists them, and has their type
        from .table import protocols

        return protocols()
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
