"""A view: an augmented crop whose place in the source image is known."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class View:
    """One view of each of B images.

    ``image [B, 3, H, W]``; ``box [B, 4]``: the crop as x1, y1, x2, y2 in source-image pixel edges
    (float); ``flip [B]`` bool: mirrored left to right, after the crop; ``size [B, 2]``: width and
    height of the source image in pixels.
    """

    image: Tensor
    box: Tensor
    flip: Tensor
    size: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "View":
        """The same view on another device."""
        parts = (getattr(self, field.name) for field in fields(self))
        return View(*(part.to(device, non_blocking=non_blocking) for part in parts))
