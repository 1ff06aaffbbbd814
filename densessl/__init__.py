"""Self-supervised pretraining for dense tasks, and the proof of what its weights are worth.

Importing it imports no torch: each name and module below is loaded once it is used
(docs/python.md).
"""

import os
from typing import TYPE_CHECKING

from .core.lazy import lazily

__version__ = "0.1.0"

# In a checkout the rooms lie beside this folder, in a wheel in it: they are densessl.pretrain,
# densessl.d2_transfer, … in both, and nothing in the working folder stands in for them.
_HERE = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_HERE, "pretrain")):
    __path__.append(os.path.dirname(_HERE))

if TYPE_CHECKING:
    from . import correspondence, evaluate, losses, run, views
    from .core.errors import DenseSSLError, EnvironmentLacks, InputError, StoppedEarly
    from .methods import create_method, list_methods
    from .pretrain.methods import Method
    from .pretrained import FeatureList, ImageTransform, PretrainedBackbone, load_backbone
    from .run import convert, results, transfer

_NAMES = {  # a name, and the module that has it
    "DenseSSLError": "core.errors",
    "EnvironmentLacks": "core.errors",
    "FeatureList": "pretrained",
    "ImageTransform": "pretrained",
    "InputError": "core.errors",
    "Method": "pretrain.methods",
    "PretrainedBackbone": "pretrained",
    "StoppedEarly": "core.errors",
    "convert": "run",
    "create_method": "methods",
    "list_methods": "methods",
    "load_backbone": "pretrained",
    "results": "run",
    "transfer": "run",
}
_MODULES = ("correspondence", "evaluate", "losses", "run", "views")
__all__ = [
    "DenseSSLError",
    "EnvironmentLacks",
    "FeatureList",
    "ImageTransform",
    "InputError",
    "Method",
    "PretrainedBackbone",
    "StoppedEarly",
    "convert",
    "correspondence",
    "create_method",
    "evaluate",
    "list_methods",
    "load_backbone",
    "losses",
    "main",
    "results",
    "run",
    "transfer",
    "views",
]
__getattr__ = lazily(__name__, _NAMES, _MODULES)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def main(argv: list[str] | None = None) -> int:
    """Run ``densessl VERB …`` (:func:`densessl.cli.main`) and return its exit code."""
    from .cli import main as run

    return run(argv)
