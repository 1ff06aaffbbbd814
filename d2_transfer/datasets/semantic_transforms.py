"""The augmentation of the semantic segmentation protocols, in mmsegmentation's order and figures.

A training image is resized by a random ratio, cropped so that no category fills the crop, flipped,
distorted in colour and padded. Which part of the resized image is kept is settled before anything
is resized, so that only that part is ever computed. Randomness comes from the generator given.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

TRIES = 10
BRIGHTNESS = 32.0  # largest shift, of 255
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18  # largest turn, in steps of two degrees (OpenCV's unit)


@dataclass(frozen=True)
class Window:
    """A crop of a resized image: the whole's ``size`` and the crop, all in resized pixels."""

    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


def resized(size: tuple[int, int], scale: tuple[int, ...], ratio: float = 1.0) -> tuple[int, int]:
    """Height and width after resizing as large as fits into ``scale``, keeping the aspect ratio.

    ``scale``: long and short edge, both times ``ratio`` and rounded down; empty: the image's own
    size times ``ratio``. Edges are rounded to the nearest pixel (mmcv, ``imrescale``).
    """
    factor = ratio
    if scale:
        longest, shortest = int(max(scale) * ratio), int(min(scale) * ratio)
        factor = min(longest / max(size), shortest / min(size))
    height, width = (max(int(edge * factor + 0.5), 1) for edge in size)
    return height, width


def draw_window(
    labels: np.ndarray,
    size: tuple[int, int],
    crop: tuple[int, int],
    largest: float,
    ignore: int,
    generator: np.random.Generator,
) -> Window:
    """A random crop of the image resized to ``size``, where it can be one of several categories.

    ``labels``: uint8 ``[h, w]``, not resized. A crop in which one category has ``largest`` or more
    of the pixels not ignored is drawn again, at most ten times (mmsegmentation, RandomCrop with
    ``cat_max_ratio``); 1 takes the first. An edge shorter than the crop's is kept whole.
    """
    height, width = min(crop[0], size[0]), min(crop[1], size[1])

    def draw() -> Window:
        top = int(generator.integers(size[0] - height + 1))
        left = int(generator.integers(size[1] - width + 1))
        return Window(size, top, left, height, width)

    window = draw()
    for _ in range(TRIES if largest < 1 else 0):
        counts = np.bincount(crop_labels(labels, window).ravel(), minlength=256)
        counts[ignore] = 0
        if counts.max() < largest * counts.sum():
            break
        window = draw()
    return window


def crop_image(image: np.ndarray, window: Window) -> np.ndarray:
    """The window of an image ``[h, w, 3]`` (uint8), resized bilinearly.

    Equal to resizing the whole with Pillow, whose filter widens to average when it shrinks, and
    cropping then.
    """
    scale_y, scale_x = image.shape[0] / window.size[0], image.shape[1] / window.size[1]
    box = (
        window.left * scale_x,
        window.top * scale_y,
        min((window.left + window.width) * scale_x, image.shape[1]),  # beyond it by rounding
        min((window.top + window.height) * scale_y, image.shape[0]),
    )
    size = (window.width, window.height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))


def crop_labels(labels: np.ndarray, window: Window) -> np.ndarray:
    """The window of labels ``[h, w]``: the label of the nearest pixel centre, never a mixture."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * (old / new), old - 1).astype(np.intp)
        for old, new in zip(labels.shape, window.size, strict=True)
    )
    rows = rows[window.top : window.top + window.height]
    return labels[rows][:, columns[window.left : window.left + window.width]]


def distort(image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """Random brightness, contrast, saturation and hue, each with probability one half.

    ``image``: uint8 RGB ``[3, h, w]``; returns the same. Contrast comes before or after saturation
    and hue, by even chance (mmsegmentation, PhotoMetricDistortion). That rounds down to whole
    numbers after each step, here it is rounded once.
    """

    def happens() -> bool:
        return generator.random() < 0.5

    def contrast(x: torch.Tensor) -> torch.Tensor:
        return x.mul(generator.uniform(*CONTRAST)).clamp_(0, 255) if happens() else x

    x = image.float()
    if happens():
        x = (x + generator.uniform(-BRIGHTNESS, BRIGHTNESS)).clamp_(0, 255)
    early = happens()
    if early:
        x = contrast(x)
    saturation = generator.uniform(*SATURATION) if happens() else 1.0
    hue = int(generator.integers(-HUE, HUE)) if happens() else 0
    if saturation != 1 or hue:
        x = turn(x, saturation, 2 * hue)
    if not early:
        x = contrast(x)
    return x.round().to(torch.uint8)


def turn(image: torch.Tensor, saturation: float, degrees: float) -> torch.Tensor:
    """Scale the saturation and turn the hue, the value staying: HSV, without its three images.

    ``image``: RGB ``[3, h, w]``, floats from 0. With value V (the largest channel), chroma K
    (largest less smallest) and hue H in sextants, a channel is V - K clip(min(k, 4 - k), 0, 1),
    k = (n + H) mod 6 and n = 5, 3, 1. Saturation is K / V, at most 1.
    """
    red, green, blue = image
    value = image.amax(0)
    chroma = value - image.amin(0)
    divisor = chroma.clamp(min=1e-6)  # grey has no hue; any will do
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    ).add_(degrees / 60)
    chroma = torch.minimum(chroma.mul_(saturation), value)
    channels = []
    for n in (5, 3, 1):
        k = (n + hue).remainder_(6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels)


def pad(tensor: torch.Tensor, size: tuple[int, int], values: list[int]) -> torch.Tensor:
    """``[C, h, w]`` grown below and at the right to ``size``, one value a channel."""
    if tuple(tensor.shape[1:]) == tuple(size):
        return tensor
    grown = torch.tensor(values, dtype=tensor.dtype).view(-1, 1, 1).repeat(1, *size)
    grown[:, : tensor.shape[1], : tensor.shape[2]] = tensor
    return grown
