"""Augmented views whose geometry is known (:mod:`densessl.pretrain.views`)."""

from .pretrain.views import *  # noqa: F403
from .pretrain.views import __all__ as __all__
