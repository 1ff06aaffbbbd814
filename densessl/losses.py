"""The losses, plain functions of tensors (:mod:`densessl.pretrain.losses`)."""

from .pretrain.losses import *  # noqa: F403
from .pretrain.losses import __all__ as __all__
