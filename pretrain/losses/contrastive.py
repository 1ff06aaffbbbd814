"""InfoNCE of vectors (MoCo, SimCLR), of dense matches (DenseCL), sets (SetSim), regions (ReSim).

    q, k     query and key projections, unit vectors           tau   temperature
    c_i      positives of query i; n_i = |c_i|                 s_ij  q_i . k_j / tau
    lse_Q    log-sum-exp over the queue, see queue_logsumexp

With one positive, -log softmax = log(e^s + e^lse_Q) - s, so only lse_Q of the queue is needed.
ReSim's q_r and k_r are pooled regions, and cells of the key maps stand in place of the queue.
"""

import torch
import torch.nn.functional as F

from densessl.core.errors import InputError, unknown

from ..precision import full_precision
from .queue import queue_logsumexp

REDUCTIONS = ("sum", "mean")


@full_precision
def info_nce(
    query: torch.Tensor, positive: torch.Tensor, queue: torch.Tensor, temperature: float
) -> torch.Tensor:
    """InfoNCE of every query with its positive against the queue, mean over queries: scalar.

    ``query`` and ``positive`` are ``[M, D]``, ``queue`` is ``[K, D]``; unit vectors, not normalised
    here. Raises InputError for shapes that disagree. Source: MoCo eq. 1.
    """
    if query.shape != positive.shape:
        raise InputError(
            f"info_nce(): query is {list(query.shape)} and positive {list(positive.shape)}; "
            "they must be equal, [M, D]"
        )
    s = (query * positive).sum(1) / temperature  # [M]
    lse_queue = queue_logsumexp(query, queue, temperature)
    return (torch.logaddexp(s, lse_queue) - s).mean()


@full_precision
def dense_info_nce(
    query: torch.Tensor,
    key: torch.Tensor,
    match: torch.Tensor,
    queue: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """InfoNCE of every query position with its matched key position, mean over all: scalar.

    ``query [B, D, Nq]`` and ``key [B, D, Nk]`` (or with a grid, ``[B, D, h, w]``) are unit vectors
    over D, not normalised here; ``match`` is long ``[B, Nq]``, for example from
    ``correspondence.nearest``; ``queue`` is ``[K, D]``. Source: DenseCL eq. 3.
    """
    query, key = query.flatten(2), key.flatten(2)
    if match.shape != (query.shape[0], query.shape[2]):
        raise InputError(
            f"dense_info_nce(): match is {list(match.shape)}; it must be [B, Nq] = "
            f"[{query.shape[0]}, {query.shape[2]}]"
        )
    index = match[:, None, :].expand(-1, key.shape[1], -1)  # [B, D, Nq]
    positive = key.gather(2, index)
    return info_nce(_rows(query), _rows(positive), queue, temperature)


@full_precision
def set_info_nce(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor,
    queue: torch.Tensor,
    temperature: float,
    reduction: str = "sum",
) -> torch.Tensor:
    """InfoNCE of every query position with its set of positives: scalar.

        l_i = -1/n_i sum_{j in c_i} log( e^{s_ij} / (sum_{j' in c_i} e^{s_ij'} + sum_Q e^{s_iQ}) )

    All positives of a position share one denominator; key positions outside the set are no
    negatives. ``query [B, D, Nq]`` and ``key [B, D, Nk]`` (or ``[B, D, h, w]``) are unit vectors
    over D, not normalised here. ``mask [B, Nq, Nk]`` holds c_i, what is above 0 being a member;
    ``queue`` is ``[K, D]``. Float weights make the mean over the positives a weighted one (bool is
    the equation). A position without positives adds 0.
    ``reduction="sum"``: the sum over the positions of an image (the paper), mean over images.
    ``reduction="mean"``: the mean over the positions that have a positive (the released code), mean
    over all images; an image without any counts as 0. Raises InputError for shapes that disagree
    and other reductions. Source: SetSim eq. 8.
    """
    query, key = query.flatten(2), key.flatten(2)
    if mask.shape != (query.shape[0], query.shape[2], key.shape[2]):
        raise InputError(
            f"set_info_nce(): mask is {list(mask.shape)}; it must be [B, Nq, Nk] = "
            f"[{query.shape[0]}, {query.shape[2]}, {key.shape[2]}]"
        )
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS, where="set_info_nce()")
    valid = (mask > 0).any(2)  # [B, Nq]
    share = valid.to(query.dtype) / len(mask)  # of a position in the loss, [B, Nq]
    if reduction == "mean":
        share = share / valid.sum(1, keepdim=True).clamp_min(1)
    s = torch.bmm(query.transpose(1, 2), key) / temperature  # [B, Nq, Nk]
    rows = _rows(query), s.flatten(0, 1), mask.to(s.dtype).flatten(0, 1), share.flatten()
    q, s, w, share = counting(valid.flatten(), *rows)
    return _set_loss(q, s, w, share, queue, temperature)


def _set_loss(
    query: torch.Tensor,
    s: torch.Tensor,
    w: torch.Tensor,
    share: torch.Tensor,
    queue: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """sum_i share_i l_i of positions ``query [M, D]``, ``s`` and weights ``w [M, Nk]``.

    A position without positives has ``share [M]`` 0; it gets all of them, which keeps its logarithm
    and its gradient finite.
    """
    w = w.masked_fill((share == 0)[:, None], 1.0)
    lse_set = torch.logsumexp(s.masked_fill(w <= 0, -torch.inf), dim=1)
    lse_queue = queue_logsumexp(query, queue, temperature)
    loss = torch.logaddexp(lse_set, lse_queue) - (s * w).sum(1) / w.sum(1)  # l_i, [M]
    return (share * loss).sum()


def _rows(features: torch.Tensor) -> torch.Tensor:
    """``[B, D, N]`` as one row a position: ``[B * N, D]``."""
    return features.transpose(1, 2).flatten(0, 1)


@full_precision
def nt_xent(
    z: torch.Tensor,
    everyone: torch.Tensor,
    own: torch.Tensor,
    positive: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Cross entropy of every sample's other view among all other samples, their mean: scalar.

        l_i = -log( e^{z_i.z_p / tau} / sum_{j != i} e^{z_i.z_j / tau} ),   p the other view of i

    ``z [2B, D]`` are this process's projections and ``everyone [2M, D]`` those of all processes
    (gathered with their gradient; ``z`` itself where there is one), unit vectors, not normalised
    here. ``own`` and ``positive`` are long ``[2B]``: the rows of ``everyone`` that are the sample
    itself and its other view. Raises InputError for shapes that disagree. Source: SimCLR eq. 1.
    """
    rows = z.shape[:1]
    if z.ndim != 2 or everyone.shape[1:] != z.shape[1:] or {own.shape, positive.shape} != {rows}:
        raise InputError(
            f"nt_xent(): z is {list(z.shape)}, everyone {list(everyone.shape)}, own "
            f"{list(own.shape)} and positive {list(positive.shape)}; they must be [2B, D], "
            "[2M, D], [2B] and [2B]"
        )
    logits = z @ everyone.T / temperature  # [2B, 2M]
    logits = logits.scatter(1, own[:, None], -torch.inf)
    return F.cross_entropy(logits, positive)


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


def counting(counts: torch.Tensor, *rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """``rows`` (tensors ``[M, ...]``) where ``counts`` (bool ``[M]``) is true; on CUDA, all.

    How many there are is known to the device only, and the host would have to wait for that number.
    So there every row takes part, and the loss gives those that do not count a share of 0.
    """
    if counts.device.type != "cpu":
        return rows
    found = counts.nonzero()[:, 0]
    return tuple(x.index_select(0, found) for x in rows)
