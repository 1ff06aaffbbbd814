"""Self-supervised pretraining for dense tasks, and the proof of what its weights are worth."""

import os

__version__ = "0.1.0"

# In a checkout the rooms lie beside this folder, in a wheel in it: they are densessl.pretrain,
# densessl.d2_transfer, … in both, and nothing in the working folder stands in for them.
_HERE = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_HERE, "pretrain")):
    __path__.append(os.path.dirname(_HERE))


def main(argv: list[str] | None = None) -> int:
    """Run ``densessl VERB …`` (:func:`densessl.cli.main`) and return its exit code."""
    from .cli import main as run

    return run(argv)
