"""InfoNCE of vectors (MoCo), of dense matches (DenseCL) and of sets (SetSim), against a queue.

    q, k     query and key projections, unit vectors           tau   temperature
    c_i      positives of query i; n_i = |c_i|                 s_ij  q_i . k_j / tau
    lse_Q    log-sum-exp over the queue, see queue_logsumexp

With one positive, -log softmax = log(e^s + e^lse_Q) - s, so only lse_Q of the queue is needed.
"""

import torch

from densessl.core.errors import InputError, unknown

from ..precision import full_precision
from .queue import queue_logsumexp
from .rows import counting

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
    return _set_loss(*counting(valid.flatten(), *rows), queue, temperature)


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
