"""Images → batches of views, whatever the number of loader processes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from densessl.core.errors import InputError
from densessl.core.reading import reading
from densessl.decoding import MAX_PIXELS, Picture, Range, UnreadableImage, decode, reasons
from densessl.decoding.channel_files import ChannelFiles
from densessl.decoding.channels import Planes, decode_channels
from densessl.decoding.truncated import ended

from . import colour
from .normalization import COLOURS, NORMALIZATION
from .recipes import Recipe, ViewRecipe, build_recipes
from .sources import ImageSource
from .view import Box, View, crop, random_box

# Keep the generators apart from each other and from those of order and permutations.
VIEW_STREAM, STAND_IN_STREAM = 0x51EE, 0x57A2
STACKED = ("image", "local", "box", "flip", "size", "colour")  # of samples, in a batch
REPLACEMENTS = 1000  # different images tried before 'nothing here is readable'


@dataclass
class Sample:
    """The views of one image before the photometric part: as :class:`View`, without B."""

    index: int  # of the image asked for
    unreadable: list[int]  # images tried in vain
    image: Tensor  # uint8 [V, C, S, S], the global views
    local: Tensor  # uint8 [L, C, s, s], the local ones; often there are none
    box: Tensor  # [V + L, 4]
    flip: Tensor  # bool [V + L]
    size: Tensor  # [2]
    colour: Tensor  # [V + L, colour.COLUMNS]


@dataclass
class Batch:
    """The samples of a step: as :class:`Sample`, with B in front."""

    index: Tensor  # long [B]
    unreadable: Tensor  # long [any]: images that could not be read, and were replaced
    image: Tensor
    local: Tensor
    box: Tensor
    flip: Tensor
    size: Tensor  # [B, 2]
    colour: Tensor

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader, so that images travel to the GPU while it computes."""
        self.image, self.local = self.image.pin_memory(), self.local.pin_memory()
        return self

    def parts(self, number: int) -> Iterator["Batch"]:
        """So many equal parts of it, one after the other, without a copy."""
        names = ("index", *STACKED)
        chunks = (getattr(self, name).chunk(number) for name in names)
        for part in zip(*chunks, strict=True):
            yield replace(self, **dict(zip(names, part, strict=True)))


def draw_view(
    rng: np.random.Generator,
    image: Image.Image | Planes,
    recipe: ViewRecipe,
    size: int,
    first_flip: Sequence[bool],
) -> tuple[Tensor, Box, bool, Tensor]:
    """A view of an image before the photometric part: uint8 ``[C, size, size]``, its box in pixels
    of ``image``, whether it is mirrored, and its colours (:func:`colour.draw`).

    ``first_flip``: that of the first view, empty for it: recipes may repeat it.
    """
    box = random_box(rng, *image.size, recipe.scale, recipe.ratio)
    flip = bool(rng.random() < recipe.flip)
    if recipe.flip_of_first and first_flip:
        flip = first_flip[0]
    pixels = crop(image, box, flip, size, recipe.bicubic)
    return pixels, box, flip, colour.draw(rng, recipe)


class ViewDataset(Dataset):
    """``dataset[(epoch, index)]`` is a :class:`Sample`, a function of these two and of ``seed``.

    ``recipe`` makes the global views of ``size`` pixels, ``local`` the local ones of
    ``local_size``; all of an image's views are cut from one decoding, with ``bounds`` and
    ``max_pixels`` as :func:`decoding.decode` has them. Boxes and sizes are in pixels of the file,
    also where it is read at reduced scale. An image that cannot be read is replaced by another one,
    chosen by seed and index; a ``truncated`` JPEG may be used as far as it goes.
    """

    def __init__(
        self,
        source: ImageSource,
        recipe: Recipe,
        size: int,
        seed: int,
        local: Recipe = (),
        local_size: int = 96,
        bounds: Range | None = None,
        max_pixels: int = MAX_PIXELS,
        channels: int = COLOURS,
        truncated: bool = False,
    ):
        self.source, self.recipe, self.view_size, self.seed = source, recipe, size, seed
        self.local, self.local_size = local, local_size
        self.bounds, self.max_pixels, self.channels = bounds, max_pixels, channels
        self.truncated = truncated

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        picture, unreadable = self._read(index)
        image: Image.Image | Planes
        if isinstance(picture, Planes):
            image, scale = picture, (1.0,) * 4
        else:
            image, scale = picture.image, picture.scale * 2  # of x1, y1, x2, y2
        images, boxes, colours = [], [], []
        flips: list[bool] = []
        for number, recipe in enumerate(self.recipe + self.local):
            rng = np.random.default_rng([VIEW_STREAM, self.seed, epoch, index, number])
            size = self.view_size if number < len(self.recipe) else self.local_size
            pixels, box, flip, drawn = draw_view(rng, image, recipe, size, flips[:1])
            images.append(pixels)
            boxes.append([edge * factor for edge, factor in zip(box, scale, strict=True)])
            flips.append(flip)
            colours.append(drawn)
        few = len(self.recipe)
        none = torch.empty((0, self.channels, self.local_size, self.local_size), dtype=torch.uint8)
        return Sample(
            index=index,
            unreadable=unreadable,
            image=torch.stack(images[:few]),
            local=torch.stack(images[few:]) if self.local else none,
            box=torch.tensor(boxes, dtype=torch.float32),
            flip=torch.tensor(flips),
            size=torch.tensor(picture.size, dtype=torch.float32),
            colour=torch.stack(colours),
        )

    def reason(self, index: int) -> str:
        """Why an image cannot be read; it is tried once more."""
        try:
            self._decode(index)
        except (UnreadableImage, OSError) as error:
            return str(error)
        return "it can be read now"

    def values(self, index: int) -> np.ndarray:
        """An image as it is decoded, uint8 ``[h, w, C]``; UnreadableImage, OSError."""
        found = self._decode(index)
        return found.values if isinstance(found, Planes) else np.asarray(found.image)

    def _decode(self, index: int) -> Picture | Planes:
        with reasons():
            file = self.source.sample(index)
        if self.channels != COLOURS:
            return decode_channels(file, self.channels, self.bounds, self.max_pixels)
        try:
            return decode(file, self.bounds, self.max_pixels)
        except UnreadableImage:
            if not self.truncated or isinstance(file, ChannelFiles):
                raise
            whole = ended(file)
            if whole is None:
                raise
            return decode(whole, self.bounds, self.max_pixels)

    def _read(self, index: int) -> tuple[Picture | Planes, list[int]]:
        """The image, or the first readable one of those that stand in for it; and those tried."""
        tried: list[int] = []
        rng = np.random.default_rng([STAND_IN_STREAM, self.seed, index])
        count = len(self.source)
        # A walk of this stride, coprime to the number of images, meets every image once.
        stride = int(rng.integers(1, count + 1))
        while math.gcd(stride, count) > 1:
            stride += 1
        for _ in range(min(count, REPLACEMENTS)):
            reading(index)
            try:
                return self._decode(index), tried
            except UnreadableImage:  # and no error of the machine: a run must not depend on those
                tried.append(index)
                index = (index + stride) % count
        raise InputError(
            f"{self.source.where}: of {len(tried)} images tried none can be read "
            f"(the first is {self.source.path(tried[0])}: {self.reason(tried[0])})"
        )


def build_dataset(cfg: CfgNode, source: ImageSource, bounds: Range | None) -> ViewDataset:
    """The views of ``source`` that a run with ``cfg`` sees; ``bounds`` as ViewDataset has them."""
    recipe, local = build_recipes(cfg.VIEWS)
    return ViewDataset(
        source,
        recipe,
        cfg.VIEWS.SIZE,
        cfg.SEED,
        local,
        cfg.VIEWS.LOCAL_SIZE,
        bounds,
        cfg.DATA.MAX_PIXELS,
        cfg.DATA.CHANNELS,
        cfg.DATA.TRUNCATED,
    )


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as one :class:`Batch`."""
    unreadable = sorted({index for sample in samples for index in sample.unreadable})
    stacked = {name: torch.stack([getattr(sample, name) for sample in samples]) for name in STACKED}
    return Batch(
        index=torch.tensor([sample.index for sample in samples]),
        unreadable=torch.tensor(unreadable, dtype=torch.long),
        **stacked,
    )


@dataclass
class Sent:
    """A batch on the device, or on its way there, and what the photometric part does to it."""

    images: list[Tensor]  # uint8 [B, V, C, S, S], of each size
    plans: list[list[colour.PhotometricPlan]]
    numbers: list[Tensor]  # of each plan
    box: Tensor  # [V + L, B, 4]
    flip: Tensor  # [V + L, B], 0 or 1
    size: Tensor  # [B, 2]
    normal: Tensor  # [2, C]: mean, std

    def tensors(self) -> list[Tensor]:
        """All that lies on the device."""
        return [*self.images, *self.numbers, self.box, self.flip, self.size, self.normal]


def send(
    batch: Batch,
    device: torch.device | str,
    mean: Sequence[float] = NORMALIZATION["mean"],
    std: Sequence[float] = NORMALIZATION["std"],
) -> Sent:
    """Bring a batch to ``device``, and decide on the CPU what becomes of which of its images.

    Everything but the images travels in one copy; nothing is waited for.
    """
    device, dtype = torch.device(device), torch.get_default_dtype()
    boxes, flips = batch.box.transpose(0, 1), batch.flip.transpose(0, 1)  # [V + L, B, …]
    drawn = batch.colour.transpose(0, 1)
    groups = [part for part in (batch.image, batch.local) if part.numel()]
    counts = [part.shape[1] for part in groups]
    plans = [
        colour.plans(
            own.flatten(0, 1), part.shape[3] * part.shape[4], device, part.shape[2] == COLOURS
        )
        for part, own in zip(groups, drawn.split(counts), strict=True)
    ]
    numbers = [plan.numbers for made in plans for plan in made]
    first = [batch.size, boxes, flips, torch.tensor([mean, std], dtype=torch.float64)]
    size, boxes, flips, normal, *numbers = _sent(first + numbers, device, dtype)
    images = [part.to(device, non_blocking=True) for part in groups]  # whole: a slice is not pinned
    return Sent(images, plans, numbers, boxes, flips, size, normal)


@torch.no_grad()
def photometric_views(sent: Sent) -> list[View]:
    """The photometric part where the batch was sent, and normalisation: what a method takes.

    The global views come first, then the local ones. Images and boxes are in torch's default
    precision. On CUDA all views of one size pass each operation together.
    """
    dtype, numbers = torch.get_default_dtype(), iter(sent.numbers)
    center, scale = sent.normal[:, :, None, None]
    images: list[Tensor] = []
    for raw, made in zip(sent.images, sent.plans, strict=True):
        whole = raw.transpose(0, 1).contiguous()
        x = torch.empty(whole.shape, dtype=dtype, device=raw.device)
        for some, pixels, plan in zip(_split(x, made), _split(whole, made), made, strict=True):
            torch.div(pixels, 255, out=some)
            colour.change_(some, plan, next(numbers)).sub_(center).div_(scale)
        images += x.unbind()
    return [
        View(*parts, sent.size)
        for parts in zip(images, sent.box.unbind(), (sent.flip > 0).unbind(), strict=True)
    ]


def apply_photometric(
    batch: Batch,
    device: torch.device | str,
    mean: Sequence[float] = NORMALIZATION["mean"],
    std: Sequence[float] = NORMALIZATION["std"],
) -> list[View]:
    """:func:`send`, then :func:`photometric_views`: the views of a batch on ``device``."""
    return photometric_views(send(batch, device, mean, std))


def _split(x: Tensor, made: list[colour.PhotometricPlan]) -> Sequence[Tensor]:
    """The images of each plan among ``x [V, B, C, H, W]``."""
    return x.flatten(0, 1).split([plan.images for plan in made])


def _sent(parts: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Tensors of the CPU on ``device``, as ``dtype``, by one copy that nobody waits for."""
    flat = torch.cat([part.reshape(-1).to(dtype) for part in parts])
    if device.type == "cuda" and torch.cuda.is_available():
        flat = flat.pin_memory()
    sizes = [part.numel() for part in parts]
    sent = flat.to(device, non_blocking=True).split(sizes)
    return [each.view(part.shape) for each, part in zip(sent, parts, strict=True)]
