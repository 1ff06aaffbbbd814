"""Rasterising: a figure becomes a patch of the image, with its exact outline."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from .figure import Figure, limb_outline
from .textures import PATTERNS, mix, noise

SUPERSAMPLE = 4  # samples a pixel side
MIN_RADIUS = 0.62  # pixels: no limb gets thinner, so that small figures stay whole


@dataclass
class Patch:
    """A drawn figure at ``corner`` (x, y; may lie outside the image).

    ``alpha [h, w]`` is its coverage, ``color [h, w, 3]``; ``mask [h, w]`` what its outline
    encloses inside the image, in one piece; ``area`` the pixels of the outline also outside it;
    ``top [4h, 4w]`` the number (from 1) of the part that lies on top at a sample;
    ``keypoints [K, 2]`` in image pixels (x, y of the sample, pixel i covering i to i + 1).
    """

    figure: Figure
    corner: tuple[int, int]
    alpha: np.ndarray
    color: np.ndarray
    mask: np.ndarray
    area: int
    top: np.ndarray
    keypoints: np.ndarray

    def inside(self, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The slices (rows, columns) of the image and of the patch where they overlap."""
        image, patch = [], []
        for start, length in zip(self.corner[::-1], self.mask.shape, strict=True):
            low, high = max(start, 0), max(min(start + length, size), max(start, 0))
            image.append(slice(low, high))
            patch.append(slice(low - start, high - start))
        return (image[0], image[1]), (patch[0], patch[1])

    def full_mask(self, size: int) -> np.ndarray:
        """The outline's inside within the image: bool [size, size]."""
        canvas = np.zeros((size, size), bool)
        image, patch = self.inside(size)
        canvas[image] = self.mask[patch]
        return canvas

    def shows(self, keypoint: int) -> bool:
        """Whether the figure's own parts leave a keypoint in sight."""
        described = self.figure.keypoints[keypoint]
        x, y = ((self.keypoints[keypoint] - self.corner) * SUPERSAMPLE).astype(int)
        part = self.top[y, x]
        name = self.figure.parts[part - 1].name if part else ""
        return described.faces_viewer and name in described.parts


def solid(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected piece of ``mask``, its holes filled."""
    pieces, count = ndimage.label(mask)
    if count > 1:
        mask = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return ndimage.binary_fill_holes(mask)


def render(figure: Figure, rng, center: tuple[float, float], length: float, light, size: int):
    """Draw ``figure`` as a Patch whose longer side is ``length`` pixels, around ``center``.

    ``light [2]`` points from the figure to where light comes from (x, y on the screen); ``size``
    is the side of the image.
    """
    low, high = figure.bounds()
    scale = length / float((high - low).max())
    half = (high - low) / 2 * scale + MIN_RADIUS + 1
    corner = np.floor(np.asarray(center) - half).astype(int)
    extent = np.ceil(np.asarray(center) + half).astype(int) - corner
    offset = np.asarray(center) - corner - (low + high) / 2 * scale  # figure to patch pixels

    top = _draw_parts(figure, scale, offset, extent)
    alpha = _shrink(top > 0)
    whole = solid(alpha >= 0.5)
    columns, rows = (c + np.arange(n) for c, n in zip(corner, extent, strict=True))
    within = ((rows >= 0) & (rows < size))[:, None] & ((columns >= 0) & (columns < size))
    mask = solid(whole & within)
    near = ndimage.binary_dilation(mask)  # soft edges stay, loose pieces go
    colors = _paint(figure, rng, top, scale, offset) * _shade(alpha, top, light, length)[..., None]
    points = np.array([keypoint.point for keypoint in figure.keypoints]).reshape(-1, 2)
    return Patch(
        figure=figure,
        corner=(int(corner[0]), int(corner[1])),
        alpha=np.where(near, alpha, 0),
        color=np.clip(colors, 0, 1),
        mask=mask,
        area=int(whole.sum()),
        top=top,
        keypoints=points * scale + offset + corner,
    )


def _draw_parts(figure: Figure, scale: float, offset, extent) -> np.ndarray:
    """The number of the topmost part at each sample: uint8 [4h, 4w], 0 where there is none."""
    width, height = (int(n) * SUPERSAMPLE for n in extent)
    canvas = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(canvas)
    for number, part in enumerate(figure.parts, start=1):
        points = part.points * scale + offset
        if part.radii:
            ra, rb = (max(radius * scale, MIN_RADIUS) for radius in part.radii)
            points = limb_outline(points[0], points[1], ra, rb)
        corners = points * SUPERSAMPLE - 0.5  # ImageDraw's integers are centres of samples
        draw.polygon([tuple(corner) for corner in corners.tolist()], fill=number)
    return np.asarray(canvas)


def _shrink(samples: np.ndarray) -> np.ndarray:
    """Bool samples [4h, 4w] to their share in each pixel: float32 [h, w]."""
    full = Image.fromarray(samples.astype(np.uint8) * 255).reduce(SUPERSAMPLE)
    return np.asarray(full, np.float32) / 255


def _paint(figure: Figure, rng, top: np.ndarray, scale: float, offset) -> np.ndarray:
    """Colours [h, w, 3]: each material's pattern, weighted by its share of the pixel."""
    names = list(figure.materials)
    of_part = np.array([0] + [1 + names.index(part.material) for part in figure.parts], np.uint8)
    material_at = of_part[top]
    height, width = (n // SUPERSAMPLE for n in top.shape)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    longest = max(height, width) / scale  # the figure's length in its own units
    x, y = (columns - offset[0]) / scale / longest, (rows - offset[1]) / scale / longest
    rough = noise(rng, height, width, 6, 3)
    total = np.zeros((height, width, 3), np.float32)
    weight = np.full((height, width), 1e-6, np.float32)
    for number, name in enumerate(names, start=1):
        share = _shrink(material_at == number)
        if not share.any():
            continue
        material = figure.materials[name]
        colors: np.ndarray = material.color.astype(np.float32)
        if material.second is not None:
            pattern = PATTERNS[material.pattern](x / material.period, y / material.period, rough)
            colors = mix(pattern, material.color, material.second)
        total += share[..., None] * colors
        weight += share
    return total / weight[..., None]


def _shade(alpha: np.ndarray, top: np.ndarray, light, length: float) -> np.ndarray:
    """A factor [h, w] on the colours: round towards the edges, darker where parts meet."""
    soft = Image.fromarray((alpha * 255).astype(np.uint8))
    radius = max(float(length) * 0.05, 0.8)  # a number of Python: Pillow takes no other
    height = np.asarray(soft.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    dy, dx = np.gradient(height)
    slope = -(dx * light[0] + dy * light[1]) * radius
    seam = np.zeros(top.shape, bool)
    seam[1:] |= top[1:] != top[:-1]
    seam[:, 1:] |= top[:, 1:] != top[:, :-1]
    return (1 + np.clip(1.1 * slope, -0.45, 0.4)) * (1 - 0.35 * _shrink(seam))
