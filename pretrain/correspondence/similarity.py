"""Correspondences from the similarity of features: cosine and nearest neighbour."""

import torch

from ..precision import full_precision


@torch.no_grad()
@full_precision
def cosine(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Cosine of every query position with every key position: ``[B, Nq, Nk]``.

    ``query`` and ``key`` are ``[B, C, h, w]`` or ``[B, C, N]``. A zero vector has cosine 0 with
    everything.
    """
    query, key = query.flatten(2), key.flatten(2)
    norm_q, norm_k = (
        torch.linalg.vector_norm(features, dim=1).clamp_min(1e-12) for features in (query, key)
    )
    return torch.bmm(query.transpose(1, 2), key) / (norm_q[:, :, None] * norm_k[:, None, :])


@torch.no_grad()
def nearest(
    query: torch.Tensor, key: torch.Tensor, similarity: torch.Tensor | None = None
) -> torch.Tensor:
    """The key position of highest cosine for every query position: long ``[B, Nq]``.

    ``query`` and ``key`` are ``[B, C, h, w]`` or ``[B, C, N]``; ``similarity`` is their
    :func:`cosine` where it is known already. Ties go to the lowest index.
    Source: DenseCL eq. 2, SetSim eq. 6.
    """
    # A matrix product may sum equal columns in different orders, so that positions with the very
    # same features differ in the last bits. In float64 that noise is far below any true gap.
    if query.is_cuda:  # at once: to look for ties first would wait for the device
        return _first_of_best(cosine(query.double(), key.double()))[0]
    if similarity is None:
        similarity = cosine(query, key)
    match, tied = _first_of_best(similarity)
    if similarity.dtype == torch.float32 and tied.any():
        exact = cosine(query[tied].double(), key[tied].double())
        match[tied] = _first_of_best(exact)[0]
    return match


def _first_of_best(similarity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first key position that is best within rounding, ``[B, Nq]``; images with such ties."""
    rounding = 64 * torch.finfo(similarity.dtype).eps
    best = similarity >= similarity.amax(2, keepdim=True) - rounding
    match = best.to(torch.uint8).argmax(2)  # argmax gives the first of equal values
    return match, (best.sum(2) > 1).any(1)


@torch.no_grad()
def one_hot(match: torch.Tensor, positions: int) -> torch.Tensor:
    """The matches ``[B, Nq]`` (indices of key positions) as a correspondence: bool ``[B, Nq, Nk]``.

    ``positions`` is Nk, the number of key positions.
    """
    return match[:, :, None] == torch.arange(positions, device=match.device)
