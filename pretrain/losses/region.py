"""ReSim: contrast of a region with the same region in the other view, against cells of key maps.

q_r     pooled region of the query view, unit vector     k_r   the same region in the key view
n_m     negatives, unit vectors                          tau   temperature
"""

import torch
import torch.nn.functional as F

from densessl.core.errors import InputError

from ..precision import full_precision
from .queue import queue_logsumexp
from .rows import counting


@torch.no_grad()
@full_precision
def cell_negatives(key_map: torch.Tensor, size: int = 3) -> torch.Tensor:
    """Unit vectors of all averages of ``size x size`` cells: ``[B * (h-size+1) * (w-size+1), D]``.

    ``key_map`` is ``[B, D, h, w]``; every image's cells, row-major, one image after the other. No
    gradient. Raises InputError for a size that does not fit the map.
    Source: the released code of ReSim.
    """
    if key_map.ndim != 4 or not 1 <= size <= min(key_map.shape[2:]):
        raise InputError(
            f"cell_negatives(): size is {size} for a map {list(key_map.shape)}; "
            "it must be from 1 to the smaller side of [B, D, h, w]"
        )
    # Channels last: rows come out as they lie in memory, and pooling is vectorised over channels.
    key_map = key_map.contiguous(memory_format=torch.channels_last)
    cells = F.avg_pool2d(key_map, size, stride=1)
    return F.normalize(cells.permute(0, 2, 3, 1).flatten(0, 2))


@full_precision
def region_info_nce(
    query: torch.Tensor,
    key: torch.Tensor,
    valid: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float,
    among: bool = False,
) -> torch.Tensor:
    """InfoNCE of every valid region with the same region of the key view, their mean: scalar.

        l_r = -log( e^{q_r.k_r / tau} / (e^{q_r.k_r / tau} + sum_m e^{q_r.n_m / tau}) )

    ``query`` and ``key`` are ``[B, R, D]``, ``negatives [M, D]``; unit vectors, not normalised
    here. ``valid [B, R]`` is bool: regions that lie inside both views. Without any, the loss is 0
    and so is every gradient. ``among=True``: k_r is already one of the negatives (the paper: all
    key regions of the batch), and is not counted again.
    Raises InputError for shapes that disagree. Source: ReSim, and its released code.
    """
    if query.ndim != 3 or query.shape != key.shape or valid.shape != query.shape[:2]:
        raise InputError(
            f"region_info_nce(): query is {list(query.shape)}, key {list(key.shape)} and valid "
            f"{list(valid.shape)}; they must be [B, R, D], [B, R, D] and [B, R]"
        )
    valid = valid.flatten().bool()
    count = valid.sum().clamp_min(1)
    query, key, valid = counting(valid, query.flatten(0, 1), key.flatten(0, 1), valid)  # [M, D]
    s = (query * key).sum(1) / temperature  # [M]
    lse = queue_logsumexp(query, negatives, temperature)
    total = lse if among else torch.logaddexp(s, lse)
    return (total - s).where(valid, 0).sum() / count
