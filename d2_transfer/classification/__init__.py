"""Classification: k-NN, linear classifier, fine-tuning with few labels or on small data sets."""

from densessl.core.lazy import lazily

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
_lazy = lazily(__name__, _HOME)


def __getattr__(name: str):
    """What takes long to import, once it is asked for: a list of protocols needs no torch."""
    if name == "PROTOCOLS":  # d2_transfer.protocols lists them, and has their type
        from .table import protocols

        return protocols()
    return _lazy(name)
