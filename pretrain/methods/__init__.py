"""Methods: a framework, a correspondence and a loss each."""

from fvcore.common.config import CfgNode

from console.errors import unknown

from .base import Method
from .moco import MoCo
from .setsim import SetSim

METHODS: dict[str, type[Method]] = {"moco": MoCo, "setsim": SetSim}


def build_method(cfg: CfgNode) -> Method:
    """The method that ``cfg.METHOD.NAME`` names, built from ``cfg``; InputError when unknown."""
    if cfg.METHOD.NAME not in METHODS:
        raise unknown("method", cfg.METHOD.NAME, METHODS, where="METHOD.NAME")
    return METHODS[cfg.METHOD.NAME](cfg)


__all__ = ["METHODS", "Method", "build_method"]
