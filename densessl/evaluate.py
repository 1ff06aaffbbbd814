"""What features are worth, whole images and position by position: pure functions of tensors."""

from .core.knn import classify as knn_classify
from .core.knn import nearest, unit
from .probes.clusters import Overclustering, overcluster
from .probes.linear import LinearProbe, linear_probe
from .probes.retrieval import knn_segment

__all__ = [
    "LinearProbe",
    "Overclustering",
    "knn_classify",
    "knn_segment",
    "linear_probe",
    "nearest",
    "overcluster",
    "unit",
]
