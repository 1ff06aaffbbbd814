"""What the known geometry of two crops gives: positions (PixPro eq. 1), points, boxes.

A view's feature grid divides its crop into h x w cells. Query cell i and key cell j belong
together when their centres, in the source image, are closer than ``threshold`` times the diagonal
of the larger of the two views' cells.

    c = (x1, y1, x2, y2)   a crop in any frame common to both views; flipped means x1 > x2
    centre of column u     x1 + (u + 1/2) (x2 - x1) / w      (runs right to left when flipped)
    D                      max of the two cell diagonals
    pairs                  |centre_i - centre_j| / D < threshold
"""

from typing import TYPE_CHECKING

import torch

from densessl.core.errors import InputError, unknown

from ..precision import full_precision

if TYPE_CHECKING:
    from ..views import View


@torch.no_grad()
@full_precision
def geometric_from_coordinates(
    query: torch.Tensor,
    key: torch.Tensor,
    grid: tuple[int, int],
    threshold: float = 0.7,
) -> torch.Tensor:
    """Pairs of cells whose centres are close: bool ``[B, N, N]``, N = h * w row-major.

    ``query`` and ``key`` are ``[B, 4]`` crops (x1, y1, x2, y2) in one frame; a flip is x1 > x2.
    ``grid`` is (h, w). The comparison is strict. Disjoint crops have no pairs. Raises InputError
    for a threshold or a grid that is not positive. Source: PixPro eq. 1 and its released code.
    """
    h, w = grid
    if threshold <= 0 or h < 1 or w < 1:
        raise InputError(
            f"geometric_from_coordinates(): grid {tuple(grid)} and threshold {threshold} "
            "must be positive"
        )
    x_q, y_q, diagonal_q = _cells(query, h, w)  # [B, w], [B, h], [B]
    x_k, y_k, diagonal_k = _cells(key, h, w)
    # Columns lie apart by x alone and rows by y, so that few differences make all the distances.
    across = (x_q[:, :, None] - x_k[:, None, :]).square()  # [B, w, w]
    down = (y_q[:, :, None] - y_k[:, None, :]).square()  # [B, h, h]
    squared = down[:, :, None, :, None] + across[:, None, :, None, :]  # [B, h, w, h, w]
    distance = squared.sqrt_().view(-1, h * w, h * w)
    return distance / torch.maximum(diagonal_q, diagonal_k)[:, None, None] < threshold


def _cells(crop: torch.Tensor, h: int, w: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centres of the columns ``[B, w]`` and rows ``[B, h]`` of ``crop [B, 4]``; cell diagonal."""
    width = (crop[:, 2] - crop[:, 0]) / w  # negative in a flipped view
    height = (crop[:, 3] - crop[:, 1]) / h
    column = torch.arange(w, device=crop.device, dtype=crop.dtype) + 0.5
    row = torch.arange(h, device=crop.device, dtype=crop.dtype) + 0.5
    x = crop[:, :1] + column * width[:, None]  # [B, w]
    y = crop[:, 1:2] + row * height[:, None]  # [B, h]
    return x, y, torch.hypot(width, height)


FRAMES = ("pixels", "pixpro")


@torch.no_grad()
def geometric(
    query_view: "View",
    key_view: "View",
    grid: tuple[int, int],
    threshold: float = 0.7,
    frame: str = "pixels",
) -> torch.Tensor:
    """Pairs of cells of two views whose centres are close: bool ``[B, N, N]``.

    Views have ``box [B, 4]`` (x1, y1, x2, y2 in source-pixel edges), ``flip [B]`` and
    ``size [B, 2]`` (source width, height). ``frame`` is ``"pixels"`` (distances in source pixels)
    or ``"pixpro"`` (the official code's coordinates: first and last pixel inclusive, over size - 1,
    so that distances are relative to width and to height). Raises InputError for another frame.
    """
    if frame not in FRAMES:
        raise unknown("frame", frame, FRAMES, where="geometric()")
    return geometric_from_coordinates(
        coordinates(query_view, frame), coordinates(key_view, frame), grid, threshold
    )


def coordinates(view: "View", frame: str) -> torch.Tensor:
    """A view's crop ``[B, 4]`` in ``frame``, x1 and x2 exchanged where the view is flipped."""
    crop = view.box
    if frame == "pixpro":
        last = (view.size - 1).clamp_min(1).to(crop.dtype)  # a one-pixel side is all at 0
        crop = torch.cat((crop[:, :2], crop[:, 2:] - 1), dim=1) / torch.cat((last, last), dim=1)
    x1, y1, x2, y2 = crop.unbind(1)  # a list as an index would be copied to the device
    return torch.where(view.flip[:, None].bool(), torch.stack((x2, y1, x1, y2), 1), crop)


@torch.no_grad()
def crop_in_view(inner: "View", outer: "View") -> tuple[torch.Tensor, torch.Tensor]:
    """The crop of ``inner`` in pixels of ``outer``, as far as that shows it.

    Returns boxes ``[B, 4]`` (x1, y1, x2, y2, within the outer view, upright whatever the flips) and
    the share ``[B]`` of the crop's area that lies in them. Source: SCFS section 4.4 (RoI-crop).
    """
    frame = coordinates(outer, "pixels")  # x1 > x2 where it is flipped
    start, span = frame[:, :2], frame[:, 2:] - frame[:, :2]
    height, width = outer.image.shape[2:]
    pixels = torch.tensor([width, height], device=frame.device, dtype=frame.dtype)
    corners = (inner.box.view(-1, 2, 2) - start[:, None]) / span[:, None] * pixels  # [B, 2, 2]
    corners = corners.sort(1).values
    shown = torch.minimum(corners.clamp_min(0), pixels)
    share = (shown[:, 1] - shown[:, 0]).prod(1) / (corners[:, 1] - corners[:, 0]).prod(1)
    return shown.flatten(1), share


@torch.no_grad()
def shared_points(
    query_view: "View", key_view: "View", uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points of the area that both views show, in the coordinates of each.

    ``uniform [B, P, 2]`` are numbers in [0, 1): where the points lie in the intersection of the two
    crops. Returns the query's and the key's points ``[B, P, 2]`` as (x, y) from -1 (left or upper
    edge of the view) to 1, flips taken into account, and bool ``[B]``: whether the crops overlap.
    Where they do not, the points are spread over each view by themselves. Source: VADeR section 3.
    """
    q, k = query_view.box, key_view.box
    low = torch.maximum(q[:, :2], k[:, :2])
    high = torch.minimum(q[:, 2:], k[:, 2:])
    valid = (high > low).all(1)
    place = low[:, None] + uniform * (high - low)[:, None]  # [B, P, 2] in source pixels
    points = []
    for view in (query_view, key_view):
        x1, y1, x2, y2 = coordinates(view, "pixels")[:, :, None].unbind(1)  # x1 > x2: flipped
        relative = torch.stack(
            ((place[..., 0] - x1) / (x2 - x1), (place[..., 1] - y1) / (y2 - y1)), dim=2
        )
        points.append(2 * torch.where(valid[:, None, None], relative, uniform) - 1)
    return points[0], points[1], valid
