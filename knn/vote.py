"""The weighted vote of the nearest neighbours (Wu et al. 2018, section 3.4; DINO's k-NN)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .search import ROWS, largest, nearest


@torch.no_grad()
def classify(
    queries: Tensor,
    database,
    labels: Tensor,
    classes: int,
    ks: Sequence[int],
    temperature: float = 0.07,
    top: int = 5,
) -> dict[int, Tensor]:
    """For each k of ``ks`` the ``top`` likeliest classes of every query, long ``[N, top]``.

    One search serves all k. ``queries`` and ``database`` as for :func:`nearest`, rows of length 1
    (:func:`unit`); ``labels [M]`` of the database, 0 to ``classes`` − 1. A k beyond the size of the
    database takes all of it.
    """
    similarity, index = nearest(queries, database, max(ks))
    return vote(similarity, labels.to(index.device)[index], classes, ks, temperature, top)


@torch.no_grad()
def vote(
    similarity: Tensor,
    labels: Tensor,
    classes: int,
    ks: Sequence[int],
    temperature: float = 0.07,
    top: int = 5,
) -> dict[int, Tensor]:
    """For each k of ``ks`` the ``top`` classes with the largest sums of weights, ``[N, top]``.

    ``similarity [N, K]``, falling, and ``labels [N, K]`` of each query's neighbours. Neighbour j
    weighs exp(s_j / τ); all weights of a query are divided by that of its nearest, which changes
    no order and keeps small τ finite. Sums are float64 in the order of the neighbours, so equal
    input gives equal output on every device; equal sums: the lower class first. Raises ValueError
    for a temperature that is not positive and for no neighbours.
    """
    N, K = similarity.shape
    if not temperature > 0 or not K:
        raise ValueError(f"{K} neighbours, temperature {temperature}; needed: more than 0 of both")
    top = min(top, classes)
    found = {k: labels.new_empty(N, top) for k in ks}
    for first in range(0, N, ROWS):
        part = slice(first, first + ROWS)
        s, l = similarity[part].double(), labels[part]  # noqa: E741
        weights = ((s - s[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(s), classes)
        for j in range(K):  # one neighbour at a time: no two additions meet
            votes.scatter_add_(1, l[:, j : j + 1], weights[:, j : j + 1])
            for k in ks:
                if j + 1 == min(k, K):
                    found[k][part] = largest(votes, top)[1]
    return found
