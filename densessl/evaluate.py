"""What features are worth, whole images and position by position: pure functions of tensors."""

from .core.knn import classify as knn_classify
from .core.knn import nearest, unit
from .probes import (
    LinearProbe,
    Overclustering,
    knn_segment,
    linear_probe,
    overcluster,
)

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
