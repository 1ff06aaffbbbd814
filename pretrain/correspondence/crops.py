"""Where one view's crop lies in another view of the same image."""

from typing import TYPE_CHECKING

import torch

from .geometry import coordinates

if TYPE_CHECKING:
    from ..views import View


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
