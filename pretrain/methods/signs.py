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
    hit = s.diagonal() > s.masked_fill(same, -torch.inf).amax(1)
    found = {"accuracy": hit.to(s.dtype).mean(), "chance": s.new_full((), 1 / B)}
    return _signs("", found, (s, same), (s, ~same), (query @ query.T, ~same))


@torch.no_grad()
@full_precision
def position_signs(
    query: Tensor, key: Tensor, positives: Tensor, among: Tensor | None = None
) -> dict[str, Tensor]:
    """The same, ``stat/positions_…``, of positions: unit vectors ``[B, D, Nq]``, ``[B, D, Nk]``.

    ``positives``: those of each query, ``[B, Nq, Nk]`` (above 0: one), or the one key ``[B, Nq]``
    (long). A query's negatives are the key positions of the image before it in the batch, or those
    that ``among`` (bool ``[B, Nk]``) takes. Queries without a positive or a negative do not count.

        stat/positions_accuracy     share of a query's pairs of a positive and a negative in which
                                    the positive is nearer; its mean over queries
        stat/positions_chance       1/2: what guessing gives, however many of either there are and
                                    however alike the positions of one image
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
    near, far = (s, own & rows), (others, negative & rows)
    found = {
        "accuracy": _mean(_nearer(near, far), rows[..., 0]),
        "chance": _mean(s.new_full((), 0.5), rows),
    }
    return _signs("positions_", found, near, far, (queries, counting))


def pair_signs(query: Tensor, key: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """:func:`position_signs` of pairs, unit vectors ``[B, P, D]`` each, where ``valid [B, P]``."""
    positives = torch.diag_embed(valid)
    return position_signs(query.transpose(1, 2), key.transpose(1, 2), positives, valid)


def _nearer(near: Pairs, far: Pairs) -> Tensor:
    """Of each row's pairs of a positive and a negative, the share whose positive is larger.

    ``[…, rows]``; 0 where there is no such pair. A tie is none.
    """
    (s, positive), (others, negative) = near, far
    ordered = others.masked_fill(~negative, torch.inf).sort(-1).values
    below = torch.searchsorted(ordered, s.contiguous())  # negatives that are smaller
    pairs = positive.sum(-1) * negative.sum(-1)
    return (below * positive).sum(-1) / pairs.clamp_min(1)


def _signs(
    what: str, found: dict[str, Tensor], near: Pairs, far: Pairs, queries: Pairs
) -> dict[str, Tensor]:
    """``found``, and the signs of positives, of negatives and of queries.

    A mean over nothing is NaN, which no line of the log takes.
    """
    similarity = _mean(*near)
    kernel = torch.exp(2 * SHARPNESS * (queries[0] - 1))  # exp(−t |x − y|²) of unit vectors
    signs = {
        **found,
        "positive_similarity": similarity,
        "negative_similarity": _mean(*far),
        "alignment": 2 - 2 * similarity,
        "uniformity": _mean(kernel, queries[1]).log(),
    }
    return {f"stat/{what}{name}": value for name, value in signs.items()}


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum()
