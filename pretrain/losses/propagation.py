"""PixPro: pixel propagation, and the consistency of the propagated with the other view's pixels.

x       projected map of a view             y    its smoothly propagated map
g(x)    the value transform of x            A    weights of the pairs of positions (correspondence)
x'      projected map of the other view     s    similarity of the positions of a view
"""

import torch

from densessl.core.errors import InputError

from ..precision import full_precision
from .similarity import check_weights

SHORTEST = 1e-12  # vectors shorter than this count as zero
PAIRS = 1e-6  # added to the weight of an image's pairs, as in the released code
ROOT = 1e-6  # added before a power < 1, whose slope at 0 is infinite, as in the released code


@full_precision
def pixel_propagation(x: torch.Tensor, value: torch.Tensor, exponent: float = 2.0) -> torch.Tensor:
    """Every position as the sum of all positions of its image that resemble it: ``[B, D, h, w]``.

        y_i = sum_j max(cos(x_i, x_j), 0)^exponent value_j / |value_j|

    ``x [B, C, h, w]`` is the projected map, ``value [B, D, h, w]`` its value transform (maps
    ``[B, C, N]`` too); both are normalised here, y is not. For an exponent below 1, 1e-6 is added
    before the power. A zero vector resembles nothing and adds nothing. Raises InputError for shapes
    that disagree and an exponent that is not positive. Source: PixPro eq. 3 and 4.
    """
    _check_maps("pixel_propagation()", x, value, exponent)
    shape, value = value.shape, value.flatten(2)
    similarity = _similarity(x.flatten(2), exponent)
    length = torch.linalg.vector_norm(value, dim=1).clamp_min(SHORTEST)  # [B, N]
    return torch.bmm(value, similarity / length[:, :, None]).view(shape)


@full_precision
def pixel_consistency(
    query: torch.Tensor, key: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Mean agreement of the pairs of an image, mean over images: scalar, to be maximised.

        l = 1/B sum_b ( sum_ij A_ij q_i . k_j / (sum_ij A_ij + 1e-6) )

    ``query [B, D, Nq]`` and ``key [B, D, Nk]`` (or ``[B, D, h, w]``) are unit vectors over D, not
    normalised here; ``weights [B, Nq, Nk]``, A, are bool or non-negative. An image without pairs
    counts as 0. PixPro's loss is -2 l(y1, x'2) - 2 l(y2, x'1). Raises InputError for shapes that
    disagree. Source: PixPro eq. 5, averaged as in its released code.
    """
    query, key = query.flatten(2), key.flatten(2)
    check_weights("pixel_consistency()", query, key, weights)
    # The key side first: with a constant key its product is outside the graph.
    return (query * torch.bmm(key, _share(weights, query.dtype).mT)).sum() / len(query)


@full_precision
def propagated_consistency(
    x: torch.Tensor,
    value: torch.Tensor,
    key: torch.Tensor,
    weights: torch.Tensor,
    exponent: float = 2.0,
) -> torch.Tensor:
    """``pixel_consistency`` of ``pixel_propagation(x, value)`` with ``key``: scalar.

    Equal to normalising y and the key and calling the one after the other, and two to three times
    faster: with s_ij of eq. 3 and v = value / |value|,

        y_i . k_j = sum_l s_il (v_l . k_j)        |y_i|^2 = sum_lm s_il (v_l . v_m) s_im

    hold without y, so that the maps meet in three products only and all else is ``[B, N, N]``.
    ``x [B, C, h, w]``, ``value`` and ``key [B, D, h, w]`` are normalised here, ``key`` is a
    constant; ``weights [B, N, Nk]`` as in ``pixel_consistency``. Raises InputError as those two.
    Source: PixPro eq. 3-5.
    """
    _check_maps("propagated_consistency()", x, value, exponent)
    x, value, key = x.flatten(2), value.flatten(2), key.flatten(2).detach()
    check_weights("propagated_consistency()", value, key, weights)
    gram = _Gram.apply(value)
    s = _similarity(x, exponent) * _inverse_length(gram)[:, :, None]  # of raw values, [B, l, i]
    length = torch.linalg.vector_norm(key, dim=1).clamp_min(SHORTEST)  # [B, Nk]
    share = _share(weights, x.dtype) / length[:, None]
    agreement = torch.bmm(torch.bmm(value.mT, key), share.mT)  # sum_j A_ij v_l . k_j, [B, l, i]
    square = (s * torch.bmm(gram, s)).sum(1)  # |y_i|^2, [B, N]
    return ((s * agreement).sum(1) * square.clamp_min(SHORTEST**2).rsqrt()).sum() / len(x)


def _similarity(x: torch.Tensor, exponent: float) -> torch.Tensor:
    """max(cos(x_i, x_j), 0)^exponent of a map ``[B, C, N]``: symmetric ``[B, N, N]``.

    Lengths divide the products and not the map, which at 7x7 is five times larger.
    """
    gram = _Gram.apply(x)
    scale = _inverse_length(gram)
    cosine = (gram * (scale[:, :, None] * scale[:, None, :])).relu()
    if exponent == 2:
        return cosine.square()
    if exponent == 1:
        return cosine
    return (cosine + ROOT if exponent < 1 else cosine) ** exponent


def _inverse_length(gram: torch.Tensor) -> torch.Tensor:
    """1 / |x_i| from the products x_i . x_j: ``[B, N]``."""
    return gram.diagonal(dim1=1, dim2=2).clamp_min(SHORTEST**2).rsqrt()


class _Gram(torch.autograd.Function):
    """x_i . x_j of a map ``[B, C, N]``: one product in the backward pass too, where bmm has two."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.bmm(x.mT, x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return torch.bmm(x, grad + grad.mT)


def _share(weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The share of every pair in the agreement of its image: ``[B, Nq, Nk]``."""
    weights = weights.to(dtype)
    return weights / (weights.sum((1, 2), keepdim=True) + PAIRS)


def _check_maps(where: str, x: torch.Tensor, value: torch.Tensor, exponent: float) -> None:
    if x.ndim < 3 or x.shape[:1] + x.shape[2:] != value.shape[:1] + value.shape[2:]:
        raise InputError(
            f"{where}: x is {list(x.shape)} and value {list(value.shape)}; "
            "they must be [B, C, h, w] and [B, D, h, w]"
        )
    if not exponent > 0:
        raise InputError(f"{where}: exponent is {exponent}; it must be positive")
