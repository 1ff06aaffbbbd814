"""The weighted vote of the nearest neighbours (Wu et al. 2018, section 3.4; DINO's k-NN)."""

from collections.abc import Iterator, Sequence

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
    _require_neighbours(K, temperature)
    top = min(top, classes)
    found = {k: labels.new_empty(N, top) for k in ks}
    for first in range(0, N, ROWS):
        part = slice(first, first + ROWS)
        sums = _sums(similarity[part], labels[part], classes, temperature)
        for count, votes in enumerate(sums, 1):
            for k in ks:
                if count == min(k, K):
                    found[k][part] = largest(votes, top)[1]
    return found


@torch.no_grad()
def probabilities(
    similarity: Tensor, labels: Tensor, classes: int, temperature: float = 0.07
) -> Tensor:
    """Each class's share of the weights that :func:`vote` sums: float64 ``[N, classes]``.

    ``similarity [N, K]``, falling, and ``labels [N, K]`` of each query's neighbours, all of which
    vote. Rows add up to 1. Raises ValueError as :func:`vote` does.
    """
    _require_neighbours(similarity.shape[1], temperature)
    for votes in _sums(similarity, labels, classes, temperature):  # noqa: B007
        pass
    return votes / votes.sum(1, keepdim=True)


def _require_neighbours(K: int, temperature: float) -> None:
    if not temperature > 0 or not K:
        raise ValueError(f"{K} neighbours, temperature {temperature}; needed: more than 0 of both")


def _sums(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Iterator[Tensor]:
    """The classes' sums of weights ``[N, classes]`` after each neighbour: one tensor that grows."""
    s = similarity.double()
    weights = ((s - s[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(s), classes)
    for j in range(s.shape[1]):  # one neighbour at a time: no two additions meet
        votes.scatter_add_(1, labels[:, j : j + 1], weights[:, j : j + 1])
        yield votes
