"""The parts of a view, each looking for itself in the whole: SCFS's Figure 3."""

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..correspondence import soft_attention
from ..options import PATCH
from .panels import LOCAL, Panel, heat, rectangle, show_pixels
from .section import Section, pixels_of

if TYPE_CHECKING:
    from .checkpoint import Pretrained
    from .look import Look

PLACES = ("upper left", "upper right", "lower left", "lower right")


@torch.no_grad()
def part_maps(model: "Pretrained", level: str, pixels: Tensor) -> Tensor:
    """Where the parts of a 2 × 2 jigsaw find themselves: ``[5, h, w]``, the last the mean.

    ``pixels [H, W, 3]`` in 0 to 1. A part's query is the mean of its features at ``level``, as that
    of a local crop (SCFS eqs. 5, 6). A part is encoded alone, in whole patches.
    """
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (model.mean, model.std))
    image = (pixels.permute(2, 0, 1) - mean) / std  # [3, H, W]
    h, w = (side // 2 for side in image.shape[1:])
    parts = torch.stack([image[:, y : y + h, x : x + w] for y in (0, h) for x in (0, w)])
    sides = [max(PATCH, round(side / PATCH) * PATCH) for side in (h, w)]
    if sides != [h, w]:
        parts = F.interpolate(parts, sides, mode="bilinear", antialias=True)
    query = model.backbone(parts)[level].mean((2, 3))[None]  # [1, 4, C]
    whole = model.backbone(image[None])[level]  # [1, C, h, w]
    maps = soft_attention(query, whole)[0].unflatten(1, whole.shape[2:])  # [4, h, w]
    return torch.cat([maps, maps.mean(0, keepdim=True)])


def jigsaw(look: "Look") -> Section:
    """The map of each part and of their mean, a row for each network."""
    view = look.views[0]
    pixels, shown = look.pixels(view), pixels_of(look)[0]
    rows = []
    for model in (look.model, *look.beside):
        maps = part_maps(model, look.level, pixels)
        low, high = float(maps.min()), float(maps.max())
        row = [Panel(f"{model.method}: the parts", partial(_parts, pixels=shown), columns=2)]
        for name, values in zip((*PLACES, "mean of the four"), maps, strict=True):
            draw = partial(heat, pixels=shown, values=values, low=low, high=high)
            title = f"{name} ({low:.2f} to {high:.2f})" if name.startswith("mean") else name
            row.append(Panel(title, draw, columns=2, sheet=name.startswith("mean")))
        rows.append(row)
    text = "each part of a 2 × 2 jigsaw looks for itself in view 1: cosine of its mean feature"
    return Section("Jigsaw", text, rows, "bright: most alike, on a network's own scale")


def _parts(axes, pixels) -> None:
    show_pixels(axes, pixels)
    h, w = (side // 2 for side in pixels.shape[:2])
    for y in (0, h):
        for x in (0, w):
            rectangle(axes, (x, y, x + w, y + h), LOCAL, 1.5)
