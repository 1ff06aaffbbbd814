"""Salient positions and the set-to-set correspondence of SetSim (eqs. 3-5).

z       features of one view                        [B, C, h, w] or [B, C, N]
A       attention map: a statistic over channels    [B, N]   eq. 3
A'      A, min-max scaled over an image's positions [B, N]   eq. 4
Omega   salient positions, A' >= delta              [B, N]   eq. 5
"""

import torch

from densessl.core.errors import InputError, unknown

from ..precision import full_precision

STATISTICS = {
    "abs_sum": lambda z: torch.linalg.vector_norm(z, ord=1, dim=1),  # the paper's eq. 3
    "square_mean": lambda z: z.square().mean(1),  # the authors' released code
}


@torch.no_grad()
@full_precision
def attention(features: torch.Tensor, statistic: str = "abs_sum") -> torch.Tensor:
    """Attention A' of every position, scaled to [0, 1] over the positions of its image.

    ``features`` is ``[B, C, h, w]`` or ``[B, C, N]``; returns ``[B, N]``. ``statistic`` is
    ``"abs_sum"`` (sum over channels of |z|) or ``"square_mean"`` (mean of z²). A constant map
    gives zeros everywhere: it has no salient position. Raises InputError for another statistic.
    Source: SetSim eqs. 3 and 4.
    """
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS, where="attention()")
    a = STATISTICS[statistic](features.flatten(2))  # [B, N]
    low, high = a.amin(1, keepdim=True), a.amax(1, keepdim=True)
    spread = high - low
    # Sums over the channels of equal positions may differ in their last bits.
    varies = spread > 64 * torch.finfo(a.dtype).eps * high
    return torch.where(varies, (a - low) / spread, 0.0)


@torch.no_grad()
def salient(
    features: torch.Tensor, threshold: float = 0.7, statistic: str = "abs_sum"
) -> torch.Tensor:
    """The salient set Omega: bool ``[B, N]``, True where attention is at least ``threshold``.

    ``features`` is ``[B, C, h, w]`` or ``[B, C, N]``; ``threshold`` lies in (0, 1], else
    InputError. Unless the map is constant, the position of highest attention is always in the set
    and that of lowest attention never. Source: SetSim eq. 5.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"salient(): threshold is {threshold}; it must lie in (0, 1]")
    return attention(features, statistic) >= threshold


@torch.no_grad()
def set_to_set(query_set: torch.Tensor, key_set: torch.Tensor) -> torch.Tensor:
    """Every salient query position with every salient key position: bool ``[B, Nq, Nk]``.

    ``query_set [B, Nq]`` and ``key_set [B, Nk]`` are bool. Source: SetSim section 3.2, the fully
    connected bipartite graph of Omega_q and Omega_k.
    """
    return query_set.bool()[:, :, None] & key_set.bool()[:, None, :]
