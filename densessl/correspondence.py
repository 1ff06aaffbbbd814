"""Which positions of two views belong together (:mod:`densessl.pretrain.correspondence`)."""

from .pretrain.correspondence import *  # noqa: F403
from .pretrain.correspondence import __all__ as __all__
