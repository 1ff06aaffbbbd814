"""What the pictures show, as numbers: sets, matches, windows, searches. Nothing is drawn here.

Everything is computed by ``pretrain.correspondence``; here it is only chosen and counted. Query
positions are of view 1, key positions of view 2, both row-major.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..correspondence import (
    Pair,
    attention,
    crop_in_view,
    geometric,
    hough_match,
    salient,
    set_to_set,
    shared_points,
    soft_attention,
    windows,
)

if TYPE_CHECKING:
    from ..views import View

MOST, LEAST = 5, 20  # confident matches, as in HoughCL's figure

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of a view


class Match(NamedTuple):
    """A position of view 1, the one of view 2 that it is matched with, and how much they match."""

    query: int
    key: int
    weight: float


def spread(items: Sequence, count: int) -> list:
    """At most ``count`` of the items, evenly over their order, the first and the last with them."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[0]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


# ------------------------------------------------------------------------------------------ SetSim


@dataclass(frozen=True)
class Sets:
    """Attention and salient sets of both views (SetSim eqs. 3–5), and what is positive by them."""

    attention: tuple[Tensor, Tensor]  # [h, w] each, in [0, 1]
    members: tuple[Tensor, Tensor]  # bool [h, w] each
    pairs: int  # of the set-to-set region
    most_attended: int | None  # position of view 1; None where its attention is constant


def sets(pair: Pair, options: Any) -> Sets:
    """The salient sets by ``cfg.SETSIM``: its threshold and its statistic."""
    maps = (pair.query, pair.key)
    a = [attention(z, options.STATISTIC)[0] for z in maps]  # [N] each
    omega = [salient(z, options.THRESHOLD, options.STATISTIC)[0] for z in maps]
    return Sets(
        attention=(a[0].view(pair.grid), a[1].view(pair.grid)),
        members=(omega[0].view(pair.grid), omega[1].view(pair.grid)),
        pairs=int(set_to_set(omega[0][None], omega[1][None]).sum()),
        most_attended=int(a[0].argmax()) if omega[0].any() else None,
    )


def neighbours(pair: Pair, positions: Sequence[int] | None = None) -> list[Match]:
    """The nearest neighbour of each of ``positions`` (None: of all); the weight is the cosine."""
    nearest, similar = pair.nearest[0], pair.cosine[0]
    positions = range(len(nearest)) if positions is None else positions
    return [Match(i, int(nearest[i]), float(similar[i, nearest[i]])) for i in positions]


def hits(matches: Sequence[Match], grid: tuple[int, int]) -> Tensor:
    """How many matches every position of view 2 has: long ``[h, w]``."""
    keys = torch.tensor([match.key for match in matches], dtype=torch.long)
    return keys.bincount(minlength=grid[0] * grid[1]).view(grid)


def geometry(pair: Pair, threshold: float, frame: str) -> Tensor:
    """Which positions show the same place (PixPro eq. 1): bool ``[N, N]``."""
    return geometric(pair.query_view, pair.key_view, pair.grid, threshold, frame)[0]


# ----------------------------------------------------------------------------------------- HoughCL


@dataclass(frozen=True)
class Hough:
    """The match of every position of view 1 under Hough voting, the most confident one first.

    Weights are confidences over the largest. ``most`` and ``least`` have no match in common.
    """

    matches: list[Match]
    most: list[Match]
    least: list[Match]
    confidence: Tensor  # of the position's match, [h, w] of view 1


def hough(pair: Pair, options: Any) -> Hough:
    """Matches by ``cfg.HOUGH`` on backbone features, and the extremes of their confidence.

    Equal confidences keep the order of their positions. Where there are fewer than MOST + LEAST
    matches, the most confident ones are chosen first.
    """
    flips = (pair.query_view.flip, pair.key_view.flip) if options.UNFLIP else None
    match, found = hough_match(
        pair.query, pair.key, options.EXPONENT, options.SIGMA, options.PASSES, flips
    )
    confidence = found[0].view(pair.grid)
    confidence = confidence / confidence.max().clamp_min(torch.finfo(found.dtype).tiny)
    weights = confidence.flatten()
    order = weights.argsort(descending=True, stable=True).tolist()
    matches = [Match(i, int(match[0, i]), float(weights[i])) for i in order]
    rest = matches[MOST:]
    return Hough(matches, matches[:MOST], rest[max(0, len(rest) - LEAST) :], confidence)


# ------------------------------------------------------------------------ points, windows, searches


def points(
    query_view: "View", key_view: "View", count: int, seed: int
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The same places of the image in both views, in pixels (VADeR); none where they are apart.

    They lie on a shifted grid of ``seed``'s, so that they fill the area that both views show.
    """
    generator = torch.Generator().manual_seed(seed)
    side = max(1, round(count**0.5))
    cells = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    uniform = (cells + torch.rand(len(cells), 2, generator=generator)) / side
    *found, valid = shared_points(query_view, key_view, uniform[None])
    if not valid[0]:
        return []
    sizes = [torch.tensor(view.image.shape[:1:-1]) for view in (query_view, key_view)]
    own, other = (((at[0] + 1) / 2 * size).tolist() for at, size in zip(found, sizes, strict=True))
    return list(zip(map(tuple, own), map(tuple, other), strict=True))


@dataclass(frozen=True)
class WindowPairs:
    """Windows of view 1 that view 2 shows too, in pixels of either, and how many there are."""

    pairs: list[tuple[Box, Box]]
    total: int
    side: int  # pixels of view 1
    stride: int


def window_pairs(
    query_view: "View", key_view: "View", options: Any, scale: float = 1
) -> WindowPairs:
    """Windows by ``cfg.RESIM``, ``scale`` times as large as in the pretraining."""
    side, stride = (max(1, round(value * scale)) for value in options.WINDOW)
    side = min(side, min(query_view.image.shape[2:]) - 1)
    query, key, valid = windows(
        query_view, key_view, side, stride, options.INCLUSIVE, options.PLACEMENT
    )
    kept = [boxes[0][valid[0]].tolist() for boxes in (query, key)]
    pairs = list(zip(*(map(tuple, boxes) for boxes in kept), strict=True))
    return WindowPairs(pairs, valid.shape[1], side, stride)


@dataclass(frozen=True)
class Search:
    """What a local crop finds in view 1 (SCFS eqs. 5, 6), and where it really lies."""

    attention: Tensor  # cosine, [h, w]
    box: Box  # as far as view 1 shows it
    share: float  # of the crop's area that view 1 shows


def searches(crops: Tensor, key: Tensor, local: list["View"], view: "View") -> list[Search]:
    """The search of every local crop; ``crops [1, Q, C]`` mean features, ``key [1, C, h, w]``."""
    A = soft_attention(crops, key)[0].unflatten(1, key.shape[2:])  # [Q, h, w]
    found = []
    for each, crop in zip(A, local, strict=True):
        box, share = crop_in_view(crop, view)
        found.append(Search(each, tuple(box[0].tolist()), float(share)))
    return found
