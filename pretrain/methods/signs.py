"""Signs of life of embeddings: what tells learning from collapse when the loss does not.

A loss against a queue falls in a dead run, too: its keys are of earlier steps, and differ. So all
here is of two views in one batch. Nothing is drawn, and no gradient reaches it.
"""

import torch
from torch import Tensor

from ..precision import full_precision

SHARPNESS = 2  # t of the Gaussian of uniformity
Pairs = tuple[Tensor, Tensor]  # cosines, and bool: which of them count


@torch.no_grad()
@full_precision
def image_signs(query: Tensor, key: Tensor) -> dict[str, Tensor]:
    """Signs of unit embeddings ``[B, D]`` of two views of the same B images; none for one image.

        stat/accuracy               share of queries to which the key of their image is nearer than
                                    that of any other image of the batch (of this process)
        stat/chance                 what guessing gives, 1 / B
        stat/positive_similarity    mean cosine of the two views of an image
        stat/negative_similarity    mean cosine of views of two images
        stat/alignment              mean |x − y|² of the two views of an image
        stat/uniformity             log mean exp(−2 |x − y|²) of the queries of two images

    Alignment and uniformity: Wang and Isola 2020, eq. 1 and 2 (α = 2, t = 2). Uniformity is that of
    one encoder: keys of a momentum encoder stay apart for a while after the queries have met.
    """
    B = len(query)
    if B < 2:
        return {}
    s = query @ key.T  # [B, B]
    same = torch.eye(B, dtype=torch.bool, device=s.device)
    near = (s.diagonal()[:, None], same.new_ones(B, 1))
    return _signs("", near, (s, ~same), (query @ query.T, ~same))


@torch.no_grad()
@full_precision
def position_signs(
    query: Tensor, key: Tensor, positives: Tensor, among: Tensor | None = None
) -> dict[str, Tensor]:
    """The same, ``stat/positions_…``, of positions: unit vectors ``[B, D, Nq]``, ``[B, D, Nk]``.

    ``positives``: those of each query, ``[B, Nq, Nk]`` (above 0: one), or the one key ``[B, Nq]``
    (long). A query's negatives are the key positions of the image before it in the batch, or those
    that ``among`` (bool ``[B, Nk]``) takes. With several positives their mean cosine must be the
    largest. Chance is 1 / (negatives + 1). Queries without a positive or a negative do not count.
    """
    B, _, Nq = query.shape
    if B < 2:
        return {}
    s = torch.bmm(query.transpose(1, 2), key)  # [B, Nq, Nk]
    if positives.ndim == 2:
        own = torch.zeros_like(s, dtype=torch.bool).scatter_(2, positives[:, :, None], True)
    else:
        own = positives > 0
    others = torch.bmm(query.transpose(1, 2), key.roll(1, 0))
    negative = torch.ones_like(own) if among is None else among.roll(1, 0)[:, None].expand_as(own)
    rows = own.any(2, keepdim=True) & negative.any(2, keepdim=True)
    queries = torch.bmm(query.transpose(1, 2), query.roll(1, 0))
    counting = rows & rows.transpose(1, 2).roll(1, 0)
    return _signs("positions_", (s, own & rows), (others, negative & rows), (queries, counting))


def pair_signs(query: Tensor, key: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """:func:`position_signs` of pairs, unit vectors ``[B, P, D]`` each, where ``valid [B, P]``."""
    positives = torch.diag_embed(valid)
    return position_signs(query.transpose(1, 2), key.transpose(1, 2), positives, valid)


def _signs(what: str, near: Pairs, far: Pairs, queries: Pairs) -> dict[str, Tensor]:
    """Of positives, negatives ``[…, rows, n]`` (a row with one has the other) and of queries.

    A mean over nothing is NaN, which no line of the log takes.
    """
    (s, positive), (others, negative) = near, far
    counts, negatives = positive.sum(-1), negative.sum(-1)
    rows = counts > 0
    mean = (s * positive).sum(-1) / counts.clamp_min(1)  # of a row's positives
    hardest = others.masked_fill(~negative, -torch.inf).amax(-1)
    similarity = _mean(s, positive)
    kernel = torch.exp(2 * SHARPNESS * (queries[0] - 1))  # exp(−t |x − y|²) of unit vectors
    return {
        f"stat/{what}accuracy": _mean((mean > hardest).to(s.dtype), rows),
        f"stat/{what}chance": _mean(1 / (negatives + 1).to(s.dtype), rows),
        f"stat/{what}positive_similarity": similarity,
        f"stat/{what}negative_similarity": _mean(others, negative),
        f"stat/{what}alignment": 2 - 2 * similarity,
        f"stat/{what}uniformity": _mean(kernel, queries[1]).log(),
    }


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum()
