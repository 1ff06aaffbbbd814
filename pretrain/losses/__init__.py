"""What is done with a correspondence: contrastive losses, cosines, propagation, region pooling.

Plain functions of tensors, float32 inside (float64 where given float64) whatever the autocast
state, and without a wait for the device on CUDA. The contrastive losses and ``pixel_consistency``
take unit vectors, which the caller makes; a function that normalises by itself says so.
"""

from .contrastive import (
    cell_negatives,
    dense_info_nce,
    info_nce,
    nt_xent,
    region_info_nce,
    set_info_nce,
)
from .distillation import distillation, next_center, paired_distillation
from .propagation import (
    pixel_consistency,
    pixel_propagation,
    propagated_consistency,
)
from .prroi import prroi_pool
from .queue import queue_logsumexp
from .similarity import negative_cosine, set_cosine
from .swav import sinkhorn, swapped_prediction

__all__ = [
    "cell_negatives",
    "dense_info_nce",
    "distillation",
    "info_nce",
    "negative_cosine",
    "next_center",
    "nt_xent",
    "paired_distillation",
    "pixel_consistency",
    "pixel_propagation",
    "propagated_consistency",
    "prroi_pool",
    "queue_logsumexp",
    "region_info_nce",
    "set_cosine",
    "set_info_nce",
    "sinkhorn",
    "swapped_prediction",
]
