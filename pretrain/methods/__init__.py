"""Methods: a framework, a correspondence and a loss each."""

from fvcore.common.config import CfgNode

from densessl.core.errors import InputError
from densessl.core.external import load_object

from .. import config
from ..options import METHODS as NAMES
from .base import Method
from .byol import BYOL
from .dense import DenseMoCo
from .dense_simsiam import DenseSimSiam
from .densecl import DenseCL
from .dino import DINO
from .houghcl import HoughCL
from .moco import MoCo
from .pixpro import PixPro
from .resim import ReSim
from .scfs import SCFS
from .setsim import SetSim, SetSimSiam
from .simclr import SimCLR
from .simsiam import SimSiam
from .swav import SwAV
from .vader import VADeR

METHODS: dict[str, type[Method]] = {
    "moco": MoCo,
    "simsiam": SimSiam,
    "byol": BYOL,
    "simclr": SimCLR,
    "swav": SwAV,
    "setsim": SetSim,
    "setsim_simsiam": SetSimSiam,
    "densecl": DenseCL,
    "houghcl": HoughCL,
    "pixpro": PixPro,
    "vader": VADeR,
    "resim": ReSim,
    "dino": DINO,
    "scfs": SCFS,
    "dense": DenseMoCo,
    "dense_simsiam": DenseSimSiam,
}
assert tuple(METHODS) == NAMES


def find_method(name: str) -> type[Method]:
    """A method by its name, or a subclass of Method by ``path/to/file.py:Class``.

    Raises InputError for an unknown name, and for a class that is no Method.
    """
    config.check_method(name)
    if name in METHODS:
        return METHODS[name]
    found = load_object(name, "method", "METHOD.NAME")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"METHOD.NAME: {name} is no subclass of pretrain.methods.Method")
    return found


def build_method(cfg: CfgNode) -> Method:
    """The method that ``cfg.METHOD.NAME`` names, built from ``cfg``; InputError when unknown."""
    return find_method(cfg.METHOD.NAME)(cfg)


__all__ = ["METHODS", "Method", "build_method", "find_method"]
