"""Correspondences from the similarity of features: cosine, nearest neighbour, search (SCFS)."""

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
    if query.device.type != "cpu":  # at once: to look for ties would wait for the device
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


@torch.no_grad()
def soft_attention(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Cosine of query vectors with every key position: ``[B, Q, N]``, in [-1, 1].

    ``query [B, Q, C]``, ``key [B, C, h, w]`` or ``[B, C, N]``. Not divided by its sum, and negative
    where features can be (not behind a ReLU); a zero vector has cosine 0 with everything.
    Source: SCFS eq. 6, with the cosine of its released code.
    """
    return cosine(query.transpose(1, 2), key)


@torch.no_grad()
def feature_search(query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each of ``query [Q, B, C]`` finds in the maps ``key [B, C, h, w]`` of the same images.

    Returns the attention ``[Q, B, h, w]`` (float32, or float64 where an input is) and the key map
    weighted with it, ``[Q, B, C, h, w]`` in the dtype of ``key``, which is not normalised.
    Source: SCFS eq. 6 and 7.
    """
    attention = soft_attention(query.transpose(0, 1), key)  # [B, Q, N]
    attention = attention.transpose(0, 1).unflatten(2, key.shape[2:])  # [Q, B, h, w]
    return attention, attention[:, :, None].to(key.dtype) * key
