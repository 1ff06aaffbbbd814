"""What frozen features are worth position by position: pure functions of tensors, and label images.

Both halves of the project use them (pretraining while it runs, the dense protocols afterwards).
"""

from .cells import cell_counts, majority, shares
from .clusters import Clustering, Overclustering, kmeans, match, overcluster
from .confusion import Confusion
from .linear import LinearProbe, linear_probe
from .pairs import Pairs, agreed, read_pairs
from .retrieval import knn_segment, sample_positions, subset

__all__ = [
    "Clustering",
    "Confusion",
    "LinearProbe",
    "Overclustering",
    "Pairs",
    "agreed",
    "cell_counts",
    "kmeans",
    "knn_segment",
    "linear_probe",
    "majority",
    "match",
    "overcluster",
    "read_pairs",
    "sample_positions",
    "shares",
    "subset",
]
