"""Correspondence by Hough voting: matches that agree on an offset support each other (HoughCL).

m = (i, j)  a match of query cell i with key cell j
o_m         its offset (y_j - y_i, x_j - x_i), whole cells
a           p(m_a), its appearance: max(cos, 0)^d                  [B, N, N]
x           a bin of the Hough space, all offsets of the grid      [(2h - 1) (2w - 1)]
K           p(m_g | x) = exp(-|o_m - x|^2 / (2 sigma^2))
hist        votes: the sum of a over the matches of an offset      [B, bins]

    p(m | D) ~ p(m_a) sum_x p(m_g|x) sum_m' p(m'_a) p(m'_g|x)  =  a * (K K hist)[o_m]

Constants that scale all confidences of an image are left out. Bins outside the grid's offsets do
not exist, so that sums at the border have fewer terms.
"""

from functools import lru_cache

import torch

from densessl.core.errors import InputError

from ..precision import full_precision
from .similarity import cosine


@torch.no_grad()
def hough_confidence(
    query: torch.Tensor,
    key: torch.Tensor,
    grid: tuple[int, int],
    exponent: float = 3,
    sigma: float = 1.0,
    passes: int = 2,
) -> torch.Tensor:
    """Confidence of every match, up to a constant of its image: ``[B, N, N]``.

    ``query`` and ``key`` are ``[B, C, h, w]`` or ``[B, C, N]`` on one ``grid`` (h, w). ``exponent``
    is d, ``sigma`` the Gaussian's width in cells. ``passes`` is 2 for the poster's formula, with
    the Gaussian over votes and over bins, or 1 for one smoothing of the votes (hyperpixel flow's
    code). Raises InputError for other passes, values that are not positive and a grid that does not
    fit. Source: HoughCL, the formula of p(m|D).
    """
    return confidence_of(cosine(query, key), grid, exponent, sigma, passes)


@torch.no_grad()
@full_precision
def confidence_of(
    similarity: torch.Tensor,
    grid: tuple[int, int],
    exponent: float = 3,
    sigma: float = 1.0,
    passes: int = 2,
) -> torch.Tensor:
    """:func:`hough_confidence` from the cosines ``[B, N, N]``."""
    h, w = grid
    _check(similarity, grid, exponent, sigma, passes)
    device, dtype = similarity.device, similarity.dtype
    bins, table = _space(h, w, device)
    a = similarity.clamp_min(0) ** exponent  # [B, N, N]
    hist = _sum_of_bins(a, table).view(-1, 2 * h - 1, 2 * w - 1)
    # The Gaussian factors: one small matrix for either axis, applied `passes` times.
    rows, columns = (_gaussian(2 * side - 1, sigma, passes, dtype, device) for side in (h, w))
    support = (rows @ hist @ columns).flatten(1)  # [B, bins]
    return a * support.index_select(1, bins.flatten()).view_as(a)


def _check(
    similarity: torch.Tensor, grid: tuple[int, int], exponent: float, sigma: float, passes: int
) -> None:
    h, w = grid
    if h < 1 or w < 1 or tuple(similarity.shape[1:]) != (h * w, h * w):
        raise InputError(
            f"hough_confidence(): grid {tuple(grid)} does not fit {similarity.shape[1]} query and "
            f"{similarity.shape[2]} key positions"
        )
    if exponent <= 0 or sigma <= 0:
        raise InputError(
            f"hough_confidence(): exponent {exponent} and sigma {sigma} must be positive"
        )
    if passes not in (1, 2):
        raise InputError(f"hough_confidence(): passes is {passes}; it must be 1 or 2")


@torch.no_grad()
@full_precision
def vote(matches: torch.Tensor, bins: torch.Tensor, count: int) -> torch.Tensor:
    """The sum of the weights of the matches of every bin: ``[B, count]``.

    ``matches [B, Nq, Nk]`` are weights, ``bins`` long ``[Nq, Nk]`` the bin of every match, below
    ``count``. The order of a sum is fixed, on every device: no atomic additions. With ``bins`` on
    the CPU nothing waits for the device.
    """
    table = _table(bins.cpu(), count).to(matches.device, non_blocking=True)
    return _sum_of_bins(matches, table)


def _sum_of_bins(matches: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """:func:`vote` with the matches of every bin ``[count, most]``."""
    flat = torch.nn.functional.pad(matches.flatten(1), (0, 1))  # the 0 that pads the table
    return flat.index_select(1, table.flatten()).view(-1, *table.shape).sum(2)


def _table(bins: torch.Tensor, count: int) -> torch.Tensor:
    """The matches of every bin: long ``[count, most]``, padded with the number of all matches."""
    flat = bins.flatten()
    order = flat.argsort(stable=True)
    sizes = flat.bincount(minlength=count)
    first = sizes.cumsum(0) - sizes  # where a bin's matches start in `order`
    place = torch.arange(len(flat)) - first[flat[order]]
    table = torch.full((count, int(sizes.max())), len(flat))
    table[flat[order], place] = order
    return table


@lru_cache(maxsize=16)
def _space(h: int, w: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The offset bin of every match ``[N, N]`` of a grid, and the matches of every bin."""
    y, x = (
        side.flatten() for side in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    )
    down = y[None, :] - y[:, None] + h - 1  # [N, N]; key minus query
    right = x[None, :] - x[:, None] + w - 1
    bins = down * (2 * w - 1) + right
    table = _table(bins, (2 * h - 1) * (2 * w - 1))
    return bins.to(device), table.to(device)


@lru_cache(maxsize=16)
def _gaussian(
    count: int, sigma: float, passes: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The Gaussian between the ``count`` offsets of an axis, to the power ``passes``."""
    place = torch.arange(count, dtype=torch.float64)
    kernel = torch.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * sigma**2))
    return torch.linalg.matrix_power(kernel, passes).to(device, dtype)


@torch.no_grad()
@full_precision
def best(confidence: torch.Tensor, fallback: torch.Tensor | None = None) -> torch.Tensor:
    """The key position of highest confidence for every query position: long ``[B, Nq]``.

    ``confidence [B, Nq, Nk]`` is non-negative. Ties go to the lowest index. A query position
    without any confidence takes the highest of ``fallback [B, Nq, Nk]`` (the cosine), or, without
    one, position 0.
    """
    match = confidence.argmax(2)
    if fallback is None:
        return match
    return torch.where(confidence.amax(2) > 0, match, fallback.argmax(2))


@torch.no_grad()
def mirrored(features: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """``features [B, C, h, w]`` with the columns in reverse order where ``flip [B]`` is true.

    Undoes the flip of a view, so that one offset can explain a flipped and an unflipped view.
    """
    return torch.where(flip.bool()[:, None, None, None], features.flip(3), features)


@torch.no_grad()
def hough_match(
    query: torch.Tensor,
    key: torch.Tensor,
    exponent: float = 3,
    sigma: float = 1.0,
    passes: int = 2,
    flips: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most confident match of every query position, long ``[B, N]``, and its confidence.

    ``query`` and ``key`` are maps ``[B, C, h, w]``. With the ``flips`` of both views, ``[B]`` each,
    they vote as if neither were mirrored; matches and confidences are of the views as they are.
    """
    h, w = query.shape[2:]
    if flips:
        query, key = mirrored(query, flips[0]), mirrored(key, flips[1])
    p = hough_confidence(query, key, (h, w), exponent, sigma, passes)
    match = best(p, cosine(query, key))
    confidence = p.gather(2, match[:, :, None])[:, :, 0]  # [B, N]
    if flips:
        place = torch.arange(h * w, device=match.device).view(h, w)
        at_q, at_k = (
            torch.where(flip.bool()[:, None], place.flip(1).flatten(), place.flatten())
            for flip in flips
        )
        match, confidence = at_k.gather(1, match).gather(1, at_q), confidence.gather(1, at_q)
    return match, confidence
