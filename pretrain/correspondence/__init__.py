"""Which positions of two views belong together.

A correspondence is a tensor ``[B, Nq, Nk]`` of non-negative weights (bool here): entry (b, i, j)
says that position i of the query view and position j of the key view of image b show the same
thing. Positions are row-major, N = h * w. Correspondences are computed without gradient and
combine with ``|`` and ``&``. SetSim (Set + Geo + nearest neighbour) reads

    pairs = set_to_set(salient(z_q), salient(z_k)) | geometric(view_q, view_k, grid, 0.5)
    pairs |= one_hot(nearest(z_q, z_k), pairs.shape[2]) & pairs.any(2, keepdim=True)
"""

from pretrain.correspondence.attention import attention, salient, set_to_set
from pretrain.correspondence.geometry import geometric, geometric_from_coordinates
from pretrain.correspondence.similarity import cosine, nearest, one_hot

__all__ = [
    "attention",
    "cosine",
    "geometric",
    "geometric_from_coordinates",
    "nearest",
    "one_hot",
    "salient",
    "set_to_set",
]
