"""Losses without negatives: cosine with the other view, of vectors (SimSiam) and of sets (SetSim).

h       predictions, the only input that gets a gradient      z    projections of the other view
w_ij    weight of key position j for query position i         c_i  the positions j with w_ij > 0
"""

import torch

from densessl.core.errors import InputError

from ..precision import full_precision

EPSILON = 1e-8  # torch.nn.CosineSimilarity's: a zero vector has cosine 0 with everything


@full_precision
def negative_cosine(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Minus the mean cosine of predictions with the other view's projections: scalar in [-1, 1].

    ``p`` and ``z`` are ``[M, D]``, or maps ``[B, D, N]`` or ``[B, D, h, w]`` whose positions
    correspond; normalised here over D. ``z`` is a constant. Raises InputError for shapes that
    disagree. Source: SimSiam eq. 1 and 3.
    """
    if p.shape != z.shape or p.ndim < 2:
        raise InputError(
            f"negative_cosine(): p is {list(p.shape)} and z {list(z.shape)}; "
            "they must be equal, [M, D] or [B, D, N]"
        )
    return -_Cosine.apply(p, z.detach()).mean()


class _Cosine(torch.autograd.Function):
    """cos(p, z) over dimension 1, with a gradient in ``p`` alone.

        d cos / dp = z / |p||z| - cos p / |p|^2

    Both maps are read once in either pass, where autograd's own way keeps their unit vectors.
    """

    @staticmethod
    def forward(ctx, p, z):
        length, other = (torch.linalg.vector_norm(x, dim=1).clamp_min(EPSILON) for x in (p, z))
        both = (length * other).reciprocal()
        cosine = (p * z).sum(1) * both
        ctx.save_for_backward(p, z, cosine, length, both)
        return cosine

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():  # create_graph: the gradient would pass for a constant
            raise RuntimeError("negative_cosine() cannot be differentiated twice")
        p, z, cosine, length, both = ctx.saved_tensors
        of_p = (-grad * cosine / length.square()).where(length > EPSILON, 0)  # [M] or [B, N]
        return (z * (grad * both)[:, None]).addcmul_(p, of_p[:, None]), None


@full_precision
def set_cosine(query: torch.Tensor, key: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Minus the weighted mean cosine of a query position with its set of positives: scalar.

        l_i = - sum_j w_ij cos(h_i, z_j) / sum_j w_ij

    Mean over the positions of an image that have a positive, then mean over all images; an image
    without any counts as 0. ``query [B, D, Nq]`` and ``key [B, D, Nk]`` (or ``[B, D, h, w]``) are
    normalised here over D; ``key`` is a constant; ``weights [B, Nq, Nk]`` are bool or non-negative.
    Raises InputError for shapes that disagree.
    Source: SetSim on SimSiam; the paper names the cosine and leaves the rest open, so the
    reductions are those of its released code on MoCo.
    """
    query, key = query.flatten(2), key.flatten(2).detach()
    check_weights("set_cosine()", query, key, weights)
    weights = weights.to(query.dtype)
    total = weights.sum(2)  # [B, Nq]
    valid = total > 0
    # The share of every pair in the loss and 1 / |z_j| go into the weights, so that neither a
    # normalised key nor a [B, Nq, Nk] tensor of cosines with a gradient exists.
    share = valid / (total * valid.sum(1, keepdim=True)).where(valid, 1)  # [B, Nq]
    length = torch.linalg.vector_norm(key, dim=1).clamp_min(EPSILON)  # [B, Nk]
    target = torch.bmm(key, ((weights / length[:, None]) * share[:, :, None]).mT)  # [B, D, Nq]
    scale = torch.linalg.vector_norm(query, dim=1).clamp_min(EPSILON)  # [B, Nq]
    return -((query * target).sum(1) / scale).sum() / len(query)


def check_weights(
    where: str, query: torch.Tensor, key: torch.Tensor, weights: torch.Tensor
) -> None:
    """Raise InputError unless ``weights`` is ``[B, Nq, Nk]`` for these flattened maps."""
    maps = query.ndim == key.ndim == 3 and query.shape[:2] == key.shape[:2]
    if not maps or weights.shape != (query.shape[0], query.shape[2], key.shape[2]):
        raise InputError(
            f"{where}: query is {list(query.shape)}, key {list(key.shape)} and weights "
            f"{list(weights.shape)}; they must be [B, D, Nq], [B, D, Nk] and [B, Nq, Nk]"
        )
