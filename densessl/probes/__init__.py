"""What frozen features are worth position by position: pure functions of tensors, and label images.

Both halves of the project use them (pretraining while it runs, the dense protocols afterwards).
"""

from densessl.core.lazy import lazily

_HOME = {
    "Clustering": "clusters",
    "Confusion": "confusion",
    "LinearProbe": "linear",
    "Overclustering": "clusters",
    "Pairs": "pairs",
    "agreed": "pairs",
    "cell_counts": "cells",
    "kmeans": "clusters",
    "join_levels": "cells",
    "knn_segment": "retrieval",
    "largest": "cells",
    "linear_probe": "linear",
    "match": "clusters",
    "overcluster": "clusters",
    "read_pairs": "pairs",
    "sample_positions": "retrieval",
    "shares": "cells",
    "subset": "retrieval",
    "take_statistics": "batch_norm",
    "upsampled": "cells",
}
__all__ = list(_HOME)
__getattr__ = lazily(__name__, _HOME)  # label images need no torch
