"""Exact correspondence of single points: the same place of the image, seen in two crops (VADeR)."""

from typing import TYPE_CHECKING

import torch

from .geometry import coordinates

if TYPE_CHECKING:
    from ..views import View


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
