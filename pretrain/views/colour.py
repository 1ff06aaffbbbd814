"""The photometric part, batched: parameters are drawn a sample at a time, pixels change together.

Parameters are drawn in the loader (:func:`draw`), as plain numbers, from the sample's own
generator, so they depend on nothing but the sample. :func:`photometric` applies them on the device
of the images, float ``[B, 3, H, W]`` in [0, 1]. Each operation is torchvision's of that name.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .recipes import ViewRecipe

# Columns of the parameters of a sample. ORDER holds four columns: the jitter operation (0 to 3,
# as JITTER; -1 for none) that comes first, second, third, fourth.
ORDER, FACTORS, GRAYSCALE, GRAYSCALE_FIRST, SIGMA, SOLARIZE, BLUR_FIRST = 0, 4, 8, 9, 10, 11, 12
COLUMNS = 13
LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it
CUT_OFF = 4.0  # a blur kernel ends after so many standard deviations
MAX_REACH = 8  # pixels: of the recipes' largest sigma, 2


def draw(rng: np.random.Generator, recipe: ViewRecipe) -> Tensor:
    """The parameters of one view of one image, ``[COLUMNS]`` float32."""
    values = np.full(COLUMNS, 0.0, dtype=np.float32)
    values[ORDER : ORDER + 4] = -1
    if rng.random() < recipe.jitter_probability:
        values[ORDER : ORDER + 4] = rng.permutation(4)
        *ranges, hue = recipe.jitter
        values[FACTORS : FACTORS + 3] = [rng.uniform(max(0, 1 - r), 1 + r) for r in ranges]
        values[FACTORS + 3] = rng.uniform(-hue, hue)
    values[GRAYSCALE] = rng.random() < recipe.grayscale
    values[GRAYSCALE_FIRST] = recipe.grayscale_first
    if rng.random() < recipe.blur:
        values[SIGMA] = rng.uniform(*recipe.blur_sigma)
    values[SOLARIZE] = rng.random() < recipe.solarize
    values[BLUR_FIRST] = recipe.blur_first
    return torch.from_numpy(values)


def photometric(x: Tensor, parameters: Tensor) -> Tensor:
    """Images ``[B, 3, H, W]`` in [0, 1] after their operations; ``x`` is overwritten.

    ``parameters [B, COLUMNS]`` stay on the CPU: they say which images an operation concerns, and
    only those are touched.
    """
    gray, first = parameters[:, GRAYSCALE] > 0, parameters[:, GRAYSCALE_FIRST] > 0
    sigma, blur_first = parameters[:, SIGMA], parameters[:, BLUR_FIRST] > 0
    _change(x, (sigma > 0) & blur_first, gaussian_blur, sigma)
    _change(x, gray & first, grayscale)
    for place in range(4):
        for number, operation in enumerate(JITTER):
            chosen = parameters[:, ORDER + place] == number
            _change(x, chosen, operation, parameters[:, FACTORS + number])
    _change(x, gray & ~first, grayscale)
    _change(x, (sigma > 0) & ~blur_first, gaussian_blur, sigma)
    _change(x, parameters[:, SOLARIZE] > 0, solarize)
    return x


def _change(x: Tensor, chosen: Tensor, operation, *values: Tensor) -> None:
    """Apply ``operation`` to the chosen images, in place."""
    index = chosen.nonzero()[:, 0]
    if len(index):
        arguments = [v[index].to(x.device, x.dtype, non_blocking=True) for v in values]
        index = index.to(x.device, non_blocking=True)
        x.index_copy_(0, index, operation(x[index], *arguments))


def luma(x: Tensor) -> Tensor:
    """Brightness as people see it, ``[B, 1, H, W]``."""
    r, g, b = x.unbind(1)
    return torch.add(r * LUMA[0], g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])[:, None]


def grayscale(x: Tensor) -> Tensor:
    return luma(x).expand_as(x)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return x.mul_(factor[:, None, None, None]).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the image's mean luma, by ``factor [B]``."""
    mean = luma(x).mean((1, 2, 3), keepdim=True)
    return _blend(x, mean, factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Away from the pixel's own luma, by ``factor [B]``."""
    return _blend(x, luma(x), factor)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None]
    return x.mul_(factor).add_(other * (1 - factor)).clamp_(0, 1)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by ``shift [B]`` of a full turn; saturation and value stay."""
    r, g, b = x.unbind(1)  # [B, H, W]
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    sixth = torch.where(
        value == r,
        g - b,
        torch.where(value == g, (b - r).add_(chroma, alpha=2), (r - g).add_(chroma, alpha=4)),
    )
    sixth.div_(chroma.clamp_min(torch.finfo(x.dtype).tiny)).add_(6 * shift[:, None, None])
    # A channel falls from the value by the chroma, ramping over one sixth of the circle:
    # red is at full strength around 0, green around 2, blue around 4 sixths.
    for channel, offset in enumerate((5, 3, 1)):
        k = sixth + offset
        k.sub_((k / 6).floor_(), alpha=6)
        ramp = k.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
        x[:, channel] = torch.addcmul(value, chroma, ramp, value=-1)
    return x


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image by its own ``sigma [B]`` (pixels), reflecting at the borders.

    A separable Gaussian, cut off at 4 sigma; one depthwise convolution a direction blurs images of
    different sigma together.
    """
    B, C, H, W = x.shape
    rows, columns = (_gaussian(sigma, side).repeat_interleave(C, 0) for side in (H, W))
    down, right = rows.shape[1] // 2, columns.shape[1] // 2
    y = F.pad(x.reshape(1, B * C, H, W), (right, right, down, down), mode="reflect")
    y = F.conv2d(y, columns[:, None, None, :], groups=B * C)
    return F.conv2d(y, rows[:, None, :, None], groups=B * C).view(B, C, H, W)


def _gaussian(sigma: Tensor, side: int) -> Tensor:
    """Kernels ``[B, T]`` for a side of so many pixels, which a reflection cannot exceed."""
    reach = min(MAX_REACH, side - 1)
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = torch.exp(-0.5 * (offset / sigma[:, None]).square())
    weight = weight * (offset.abs() <= CUT_OFF * sigma[:, None].clamp_min(1 / CUT_OFF))
    return weight / weight.sum(1, keepdim=True)


def solarize(x: Tensor) -> Tensor:
    """Invert what is at least half bright (128 of 255)."""
    return torch.where(x >= 128 / 255, 1 - x, x)


JITTER = (brightness, contrast, saturation, hue)
