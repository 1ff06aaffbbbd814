"""Exact nearest neighbours in blocks and the vote that weights them: pure functions of tensors.

Both halves of the project use them (pretraining while it runs, the protocol ``knn`` afterwards).
"""

from .search import nearest, unit
from .vote import classify, probabilities, vote

__all__ = ["classify", "nearest", "probabilities", "unit", "vote"]
