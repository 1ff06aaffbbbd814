"""What a dense method of your own builds on (docs/methods.md)."""

from .branch import matching_generator, pair_statistics, weighted
from .moco import DenseMoCo
from .simsiam import DenseSimSiam

__all__ = ["DenseMoCo", "DenseSimSiam", "matching_generator", "pair_statistics", "weighted"]
