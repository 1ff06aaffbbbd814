"""Classification: k-NN, linear classifier, fine-tuning with few labels or on small data sets."""

import importlib

from .table import NAMES, TASKS

__all__ = [
    "NAMES",
    "PROTOCOLS",
    "TASKS",
    "check_data",
    "describe",
    "evaluate_trained",
    "prepare",
    "resolve",
    "run_trial",
    "training_files",
    "with_start_of",
]

_HOME = {
    "check_data": "data",
    "describe": "configuration",
    "evaluate_trained": "trial",
    "prepare": "weights",
    "resolve": "configuration",
    "run_trial": "trial",
    "training_files": "data",
    "with_start_of": "weights",
}


def __getattr__(name: str):
    """What takes long to import, once it is asked for: a list of protocols needs no torch."""
    if name == "PROTOCOLS":  # d2_transfer.protocols lists them, and has their type
        from .table import protocols

        return protocols()
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
