"""The photometric part, batched: parameters are drawn a sample at a time, pixels change together.

Parameters are drawn in the loader (:func:`draw`), as plain numbers, from the sample's own
generator, so they depend on nothing but the sample. :func:`photometric` applies them on the device
of the images, float ``[B, C, H, W]`` in [0, 1]. Each operation is torchvision's of that name. Of
other than three channels no colours are known: there is no hue, no saturation and no grey, and
contrast is away from the mean of all channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .recipes import ViewRecipe

# Columns of the parameters of a sample. ORDER holds four columns: the jitter operation (0 to 3; -1
# for none) that comes first, second, third, fourth.
ORDER, FACTORS, GRAYSCALE, GRAYSCALE_FIRST, SIGMA, SOLARIZE, BLUR_FIRST = 0, 4, 8, 9, 10, 11, 12
COLUMNS = 13
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # jitter operations
LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it
OF_COLOURS = ("hue", "grayscale")  # operations
CUT_OFF = 4.0  # a blur kernel ends after so many standard deviations
CACHED = 224**2  # pixels that an operation takes at once on a CPU; by measurement (1 to 8 × 224²)
PLANNED = 4  # times as many for a plan there, whose images stay in a larger cache
BLOCK = 32  # pixels that a row of a blur's matrix gives; by measurement (16 to 224)
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


@dataclass(frozen=True)
class _Step:
    """One operation, and the part of the plan's numbers that says of which images, and how."""

    name: str
    where: slice
    brightness: int  # of a blend: so many images come first that change in brightness,
    contrast: int  # behind them so many in contrast, then those in saturation

    def parts(self, most: int) -> Iterator["_Step"]:
        """The same in steps of at most so many images."""
        for begin in range(self.where.start, self.where.stop, most):
            end = min(begin + most, self.where.stop)
            before, images = begin - self.where.start, end - begin
            brightness = min(max(self.brightness - before, 0), images)
            contrast = min(max(self.brightness + self.contrast - before, 0), images) - brightness
            yield _Step(self.name, slice(begin, end), brightness, contrast)


class PhotometricPlan:
    """What happens to which images, decided on the CPU, where the parameters are drawn.

    Every operation takes all of its images at once, so there are as many kernels for a large batch
    as for a small one. An image's jitter keeps its own order: three rounds of blends (brightness,
    contrast, saturation) come before the hue of all, and three behind it; an image whose hue is its
    second operation is in one of the former and in two of the latter.

    ``parameters [B, COLUMNS]``, on the CPU. ``numbers [2, M]``, float64: the images of each step
    and their values, all that the device needs, in one copy. ``colours``: whether images are RGB.
    ``most``: how many images an operation takes at once, if not all.
    """

    def __init__(self, parameters: Tensor, colours: bool = True, most: int = 0):
        self.images, p = len(parameters), parameters.numpy()
        self.colours, self.most = colours, most or max(self.images, 1)
        self.steps: list[_Step] = []
        self._index: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        gray, gray_first = p[:, GRAYSCALE] > 0, p[:, GRAYSCALE_FIRST] > 0
        sigma, blur_first = p[:, SIGMA], p[:, BLUR_FIRST] > 0
        self._add("blur", (sigma > 0) & blur_first, sigma)
        self._add("grayscale", gray & gray_first)
        self._jitter(p[:, ORDER : ORDER + 4].astype(int), p[:, FACTORS : FACTORS + 4])
        self._add("grayscale", gray & ~gray_first)
        self._add("blur", (sigma > 0) & ~blur_first, sigma)
        self._add("solarize", p[:, SOLARIZE] > 0)
        nothing = np.zeros(0)
        index, values = (np.concatenate([nothing, *part]) for part in (self._index, self._values))
        self.numbers = torch.from_numpy(np.stack([index, values]))

    def _jitter(self, order: np.ndarray, factors: np.ndarray) -> None:
        hue_at = (order == HUE).argmax(1)
        for offset in range(-3, 4):  # of an operation from the image's hue
            place = hue_at + offset
            among = (order[:, 0] >= 0) & (place >= 0) & (place < 4)
            operation = np.where(among, order[np.arange(len(order)), place.clip(0, 3)], -1)
            value = factors[np.arange(len(order)), operation]
            if offset == 0:
                self._add("hue", among, value)
            else:
                self._add("blend", among, value, operation)

    def _add(
        self,
        name: str,
        among: np.ndarray,
        values: np.ndarray | None = None,
        operation: np.ndarray | None = None,
    ) -> None:
        if not self.colours and name in OF_COLOURS:
            return
        if not self.colours and operation is not None:
            among = among & (operation != SATURATION)
        index = np.flatnonzero(among)
        if not len(index):
            return
        brightness = contrast = 0
        if operation is not None:
            index = index[operation[index].argsort(kind="stable")]
            brightness, contrast = (
                int((operation == kind).sum()) for kind in (BRIGHTNESS, CONTRAST)
            )
        begin = sum(map(len, self._index))
        where = slice(begin, begin + len(index))
        self.steps.append(_Step(name, where, brightness, contrast))
        self._index.append(index)
        self._values.append(np.zeros(len(index)) if values is None else values[index])


def plans(
    parameters: Tensor, pixels: int, device: torch.device, colours: bool = True
) -> list[PhotometricPlan]:
    """The plans of images of so many pixels, in their order; ``colours``: whether they are RGB.

    One for all on a GPU, where each kernel takes its time; on the CPU few images at once, which
    stay in its cache.
    """
    if device.type != "cpu":
        return [PhotometricPlan(parameters, colours)]
    most = max(1, CACHED // pixels)
    return [PhotometricPlan(part, colours, most) for part in parameters.split(PLANNED * most)]


def photometric(x: Tensor, parameters: Tensor) -> Tensor:
    """Images ``[B, C, H, W]`` in [0, 1] after their operations; ``x`` is overwritten.

    ``parameters [B, COLUMNS]``, on the CPU.
    """
    made = plans(parameters, x.shape[2] * x.shape[3], x.device, x.shape[1] == len(LUMA))
    for part, plan in zip(x.split([plan.images for plan in made]), made, strict=True):
        change_(part, plan, plan.numbers.to(x.device, x.dtype))
    return x


def change_(x: Tensor, plan: PhotometricPlan, numbers: Tensor) -> Tensor:
    """``x [B, C, H, W]``, changed by the plan; ``numbers`` are its own, on the device of ``x``."""
    index, values, rest = numbers[0].long(), numbers[1], 1 - numbers[1]
    for step in (part for whole in plan.steps for part in whole.parts(plan.most)):
        images, value = index[step.where], values[step.where]
        # One image is changed where it lies.
        taken = x.index_select(0, images) if plan.most > 1 else x.narrow(0, int(images), 1)
        if step.name == "blend":
            y = blend(taken, value, rest[step.where], step.brightness, step.contrast)
        elif step.name == "hue":
            y = hue(taken, value)
        elif step.name == "blur":
            y = gaussian_blur(taken, value)
        elif step.name == "grayscale":
            y = grayscale(taken)
        else:
            y = solarize(taken)
        if plan.most > 1:
            x.index_copy_(0, images, y)
        elif y is not taken:
            taken.copy_(y)
    return x


def luma(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Brightness as people see it, ``[B, 1, H, W]``."""
    r, g, b = x.split(1, 1)
    out = torch.mul(r, LUMA[0], out=out)
    return out.add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def grayscale(x: Tensor) -> Tensor:
    return luma(x).expand_as(x)


def blend(x: Tensor, factor: Tensor, rest: Tensor, brightness: int, contrast: int) -> Tensor:
    """Away from something darker or greyer, by ``factor [B]`` (``rest`` is 1 − factor); in place.

    From black for the first ``brightness`` images, from their mean luma (of other channels than
    RGB: their mean) for the ``contrast`` behind them, from each pixel's own luma (saturation) for
    the others.
    """
    if brightness == len(x):
        return x.mul_(factor[:, None, None, None]).clamp_(0, 1)
    other = torch.zeros_like(x[:, :1])
    if x.shape[1] == len(LUMA):
        luma(x[brightness:], out=other[brightness:])
    else:
        other[brightness:] = x[brightness:].mean(1, keepdim=True)
    if contrast:
        flat = other[brightness : brightness + contrast]
        flat.copy_(flat.mean((1, 2, 3), keepdim=True))
    other.mul_(rest[:, None, None, None])
    return x.mul_(factor[:, None, None, None]).add_(other).clamp_(0, 1)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by ``shift [B]`` of a full turn; saturation and value stay."""
    r, g, b = x.unbind(1)  # [B, H, W]
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = torch.minimum(torch.minimum(r, g), b).neg_().add_(value)
    # Of the largest channel. A lerp by 0 or 1 is exact, and ten times as fast as where() on a CPU.
    room = torch.empty_like(value)
    sixth = (r - g).add_(chroma, alpha=4)
    sixth.lerp_((b - r).add_(chroma, alpha=2), torch.eq(value, g, out=room))
    sixth.lerp_(g - b, torch.eq(value, r, out=room))
    sixth.div_(torch.clamp_min(chroma, torch.finfo(x.dtype).tiny, out=room))
    sixth.add_(6 * shift[:, None, None])
    sixth.sub_(torch.div(sixth, 6, out=room).floor_(), alpha=6)  # from 0 to 6
    # Red falls from the value by the chroma around 3 sixths, green and blue far from 2 and from 4.
    for channel, middle in zip((r, g, b), (3, 2, 4), strict=True):
        torch.sub(sixth, middle, out=channel)
    x.abs_()
    r.neg_().add_(2)
    x[:, 1:].sub_(1)
    return torch.addcmul(value[:, None], chroma[:, None], x.clamp_(0, 1), value=-1, out=x)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image by its own ``sigma [B]`` (pixels), reflecting at the borders.

    A separable Gaussian, cut off at 4 sigma: a matrix product a direction, of pieces of BLOCK
    pixels with the matrix of their weights, blurs images of different sigma together.
    """
    B, C, H, W = x.shape
    columns = _banded(_gaussian(sigma, W), min(BLOCK, W))
    rows = columns if H == W else _banded(_gaussian(sigma, H), min(BLOCK, H))
    right, down = columns.shape[2] - columns.shape[1], rows.shape[2] - rows.shape[1]
    y = F.pad(x, (right // 2, right // 2, down // 2, down // 2), mode="reflect")
    y = _pieces(y, -1, columns).reshape(B, -1, columns.shape[2])
    y = (y @ columns.mT).view(B, C, H + down, -1)[..., :W]
    y = rows[:, None, None] @ _pieces(y, -2, rows).mT
    return y.reshape(B, C, -1, W)[:, :, :H]


def _pieces(x: Tensor, dim: int, weights: Tensor) -> Tensor:
    """Overlapping pieces along ``dim`` of ``x``, one for each that ``weights [B, L, T]`` gives L
    pixels of, at the end; the last reach beyond ``x``, where they are zero."""
    length, taken = weights.shape[1:]
    missing = -(x.shape[dim] - taken) % length
    if missing:
        x = F.pad(x, (0, missing) if dim == -1 else (0, 0, 0, missing))
    return x.unfold(dim, taken, length)


def _banded(kernels: Tensor, length: int) -> Tensor:
    """The matrices ``[B, L, L + T − 1]`` by which ``kernels [B, T]`` give L pixels."""
    B, T = kernels.shape
    rows = F.pad(kernels[:, None].expand(B, length, T), (0, length))
    return rows.flatten(1)[:, : length * (length + T - 1)].unflatten(1, (length, -1))


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
