"""Feature search (SCFS): a view looks for itself in the teacher's map of another view."""

import torch

from .similarity import cosine


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
