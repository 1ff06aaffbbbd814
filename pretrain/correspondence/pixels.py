"""One-to-one pairs of salient positions: the pixel-to-pixel strategies of SetSim's Table 2.

m, n    sizes of an image's query set and key set
r       min(m, n): the number of pairs; of the larger set, r positions take part

The paper says that these need equal numbers of pixels in both views, not how they become equal.
"""

import numpy as np
import torch

from .similarity import cosine


@torch.no_grad()
def random_pairs(
    query_set: torch.Tensor, key_set: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Positions of the two sets paired at random, one to one: bool ``[B, Nq, Nk]``.

    ``query_set [B, Nq]`` and ``key_set [B, Nk]`` are bool. r positions of each set and the
    bijection between them are uniform. The numbers are drawn on the CPU, so that a (CPU)
    ``generator`` gives the same pairs on every device. Source: SetSim Table 2, "random".
    """
    query_scores, key_scores = (
        torch.rand(each.shape, generator=generator).to(each.device, non_blocking=True)
        for each in (query_set, key_set)
    )
    return _pair_ranks(query_scores, key_scores, query_set, key_set)


@torch.no_grad()
def sorted_pairs(
    query_attention: torch.Tensor,
    key_attention: torch.Tensor,
    query_set: torch.Tensor,
    key_set: torch.Tensor,
) -> torch.Tensor:
    """Positions of the two sets paired by their rank in attention: bool ``[B, Nq, Nk]``.

    ``query_attention [B, Nq]`` and ``key_attention [B, Nk]`` as of :func:`attention`; the sets are
    bool of the same shapes. The t-th largest of one set goes with the t-th largest of the other,
    t < r; equal attention ranks by index. Source: SetSim Table 2, "sort".
    """
    return _pair_ranks(query_attention, key_attention, query_set, key_set)


def _pair_ranks(
    query_score: torch.Tensor,
    key_score: torch.Tensor,
    query_set: torch.Tensor,
    key_set: torch.Tensor,
) -> torch.Tensor:
    """Members of the two sets whose scores have the same rank: bool ``[B, Nq, Nk]``."""
    query_set, key_set = query_set.bool(), key_set.bool()
    rank_q, rank_k = _rank(query_score, query_set), _rank(key_score, key_set)
    # Members come first, so that ranks from r on meet no member of the smaller set.
    members = query_set[:, :, None] & key_set[:, None, :]
    return members & (rank_q[:, :, None] == rank_k[:, None, :])


def _rank(score: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """The place of every position in its image, members first, largest score first: ``[B, N]``."""
    score = score.masked_fill(~members, -torch.inf)
    order = score.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)


@torch.no_grad()
def hungarian(
    query: torch.Tensor, key: torch.Tensor, query_set: torch.Tensor, key_set: torch.Tensor
) -> torch.Tensor:
    """The one-to-one pairs of the two sets of highest total cosine: bool ``[B, Nq, Nk]``.

    ``query`` and ``key`` are ``[B, C, h, w]`` or ``[B, C, N]``; ``query_set [B, Nq]`` and
    ``key_set [B, Nk]`` are bool. Every image has exactly min(m, n) pairs. The assignment is solved
    on the CPU, image by image: this waits for the device. Source: SetSim Table 2, "hungarian".
    """
    return assignment(cosine(query, key), query_set, key_set)


@torch.no_grad()
def assignment(
    similarity: torch.Tensor, query_set: torch.Tensor, key_set: torch.Tensor
) -> torch.Tensor:
    """:func:`hungarian` from the cosines ``[B, Nq, Nk]``."""
    from scipy.optimize import linear_sum_assignment  # slow to import, and few runs need it

    values = similarity.double().cpu().numpy()
    sets = (query_set.bool().cpu().numpy(), key_set.bool().cpu().numpy())
    pairs = np.zeros(values.shape, dtype=bool)

    # Blocks are small (some 15 x 15): threads cost more than they bring.
    for value, query, key, pair in zip(values, *sets, pairs, strict=True):
        rows, columns = np.flatnonzero(query), np.flatnonzero(key)
        chosen = linear_sum_assignment(value[np.ix_(rows, columns)], maximize=True)
        pair[rows[chosen[0]], columns[chosen[1]]] = True
    return torch.from_numpy(pairs).to(similarity.device)
