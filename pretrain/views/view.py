"""A view: an augmented crop whose place in the source image is known; and how it is drawn."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densessl.decoding import unlimited
from densessl.decoding.channels import Planes


@dataclass
class View:
    """One view of each of B images.

    ``image [B, C, H, W]``; ``box [B, 4]``: the crop as x1, y1, x2, y2 in source-image pixel edges
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


Box = tuple[int, int, int, int]  # x1, y1, x2, y2: pixel edges of the source image


def random_box(
    rng: np.random.Generator,
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """A random crop of an image, distributed as torchvision's RandomResizedCrop.

    Ten tries with an area uniform in ``scale`` and an aspect ratio log-uniform in ``ratio``; then
    the largest centred crop whose ratio is allowed.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return x, y, x + w, y + h
    w, h = width, height
    if width / height < ratio[0]:
        h = max(1, min(height, round(width / ratio[0])))
    elif width / height > ratio[1]:
        w = max(1, min(width, round(height * ratio[1])))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h


def crop(
    image: Image.Image | Planes, box: Box, flip: bool, size: int, bicubic: bool = False
) -> Tensor:
    """The crop at ``size`` × ``size`` pixels (antialiased), uint8 ``[C, size, size]``."""
    if isinstance(image, Planes):
        return torch.cat([crop(band, box, flip, size, bicubic) for band in image.bands])
    kind = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    with unlimited():
        view = image.crop(box).resize((size, size), kind)
    if flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = np.atleast_3d(np.asarray(view)).transpose(2, 0, 1)
    return torch.from_numpy(values.copy())  # PyTorch's own copy takes twice the time
