"""What frozen features are worth position by position: pure functions of tensors, and label images.

Both halves of the project use them (pretraining while it runs, the dense protocols afterwards).
"""

import importlib

_HOME = {
    "Clustering": "clusters",
    "Confusion": "confusion",
    "LinearProbe": "linear",
    "Overclustering": "clusters",
    "Pairs": "pairs",
    "agreed": "pairs",
    "cell_counts": "cells",
    "kmeans": "clusters",
    "knn_segment": "retrieval",
    "linear_probe": "linear",
    "majority": "cells",
    "match": "clusters",
    "overcluster": "clusters",
    "read_pairs": "pairs",
    "sample_positions": "retrieval",
    "shares": "cells",
    "subset": "retrieval",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    """What takes long to import, once it is asked for: label images need no torch."""
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
