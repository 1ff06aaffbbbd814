"""Which positions of two views belong together.

A correspondence is a tensor ``[B, Nq, Nk]`` of non-negative weights (bool or float): entry
(b, i, j) says how much position i of the query view and position j of the key view of image b show
the same thing. Positions are row-major, N = h * w. Correspondences are computed without gradient
and combine with ``|`` and ``&``. SetSim (Set + Geo + nearest neighbour) reads

    pairs = set_to_set(salient(z_q), salient(z_k)) | geometric(view_q, view_k, grid, 0.5)
    pairs |= one_hot(nearest(z_q, z_k), pairs.shape[2]) & pairs.any(2, keepdim=True)

and the same as text, for a configuration, is :func:`pretrain.correspondence.expression.parse`.
"""

from .attention import attention, salient, set_to_set
from .expression import Expression, parse
from .geometry import crop_in_view, geometric, geometric_from_coordinates, shared_points
from .hough import best, hough_confidence, hough_match, mirrored, vote
from .pair import Pair
from .pixels import hungarian, random_pairs, sorted_pairs
from .similarity import cosine, feature_search, nearest, one_hot, soft_attention
from .windows import windows

__all__ = [
    "Expression",
    "Pair",
    "attention",
    "best",
    "cosine",
    "crop_in_view",
    "feature_search",
    "geometric",
    "geometric_from_coordinates",
    "hough_confidence",
    "hough_match",
    "hungarian",
    "mirrored",
    "nearest",
    "one_hot",
    "parse",
    "random_pairs",
    "salient",
    "set_to_set",
    "shared_points",
    "soft_attention",
    "sorted_pairs",
    "vote",
    "windows",
]
