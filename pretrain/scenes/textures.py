"""Textures: families of surfaces for backgrounds and clutter, patterns for figures, colours.

A texture is ``family(rng, height, width) -> [height, width, 3]``, values in 0 to 1.
A pattern is ``pattern(x, y, noise) -> [h, w]`` in 0 to 1, on a figure's own coordinates.
"""

import colorsys

import numpy as np
from PIL import Image


def color(rng, hue=(0.0, 1.0), saturation=(0.1, 0.9), value=(0.25, 0.95)) -> np.ndarray:
    """A random RGB colour [3] within ranges of hue (may pass 1), saturation and value."""
    drawn = colorsys.hsv_to_rgb(
        rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value)
    )
    return np.array(drawn)


def two_colors(rng) -> tuple[np.ndarray, np.ndarray]:
    """Two colours of one surface: often alike, sometimes far apart."""
    first = color(rng, saturation=(0.05, 0.7))
    if rng.random() < 0.6:
        return first, np.clip(first * rng.uniform(0.55, 1.45) + rng.normal(0, 0.05, 3), 0, 1)
    return first, color(rng, saturation=(0.05, 0.7))


def noise(rng, height: int, width: int, cells: int = 4, octaves: int = 4, falloff=0.55):
    """Smooth noise [height, width] in 0 to 1: ``octaves`` random grids, each twice as fine."""
    total, weight = np.zeros((height, width), np.float32), 1.0
    for octave in range(octaves):
        n = min(cells << octave, max(height, width))
        grid = Image.fromarray(rng.random((n, n), dtype=np.float32))
        total += weight * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        weight *= falloff
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def mix(share: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Colours [..., 3] that go from ``first`` (share 0) to ``second`` (share 1)."""
    return (first + share[..., None] * (second - first)).astype(np.float32)


def _turned(rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates x, y [height, width] in a frame turned at random, in image sides."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def gradient(rng, height: int, width: int) -> np.ndarray:
    """One colour that turns into another, a little unevenly."""
    x, _ = _turned(rng, height, width)
    share = (x - x.min()) / max(float(np.ptp(x)), 1e-6)
    return mix(share + 0.1 * (noise(rng, height, width) - 0.5), *two_colors(rng))


def cloudy(rng, height: int, width: int) -> np.ndarray:
    """Smooth noise of several octaves."""
    return mix(noise(rng, height, width, rng.integers(2, 7), 5), *two_colors(rng))


def stripes(rng, height: int, width: int) -> np.ndarray:
    """Wavy stripes, soft or hard."""
    x, _ = _turned(rng, height, width)
    wave = np.sin(x * 2 * np.pi * rng.uniform(4, 22) + 3 * noise(rng, height, width, 2, 2))
    return mix(np.clip(0.5 + wave * rng.uniform(0.6, 3), 0, 1), *two_colors(rng))


def checker(rng, height: int, width: int) -> np.ndarray:
    """Squares or rectangles in a turned grid."""
    x, y = _turned(rng, height, width)
    n = rng.uniform(4, 14)
    share = (np.floor(x * n) + np.floor(y * n * rng.uniform(0.5, 1.5))) % 2
    return mix(0.8 * share + 0.2 * noise(rng, height, width, 8, 3), *two_colors(rng))


def blobs(rng, height: int, width: int) -> np.ndarray:
    """Hard-edged islands."""
    field = noise(rng, height, width, rng.integers(5, 14), 2, 0.3)
    share = np.clip((field - rng.uniform(0.4, 0.6)) * 14, 0, 1)
    return mix(share, *two_colors(rng))


def bricks(rng, height: int, width: int) -> np.ndarray:
    """Courses of bricks, each of its own tone, with mortar between."""
    y, x = np.mgrid[:height, :width] / max(height, width) * rng.uniform(8, 18)
    row = np.floor(y)
    column = np.floor((x + 0.5 * (row % 2)) / 2)
    joint = (y - row < 0.14) | ((x + 0.5 * (row % 2)) / 2 - column < 0.07)
    tone = (np.sin(row * 12.9898 + column * 78.233) * 43758.5453) % 1  # a hash a brick
    brick, mortar = two_colors(rng)
    shaded = mix(tone * 0.6, brick, brick * 0.6)
    return np.where(joint[..., None], mortar, shaded).astype(np.float32)


def grain(rng, height: int, width: int) -> np.ndarray:
    """Grass, fur, wood: noise stretched along one axis."""
    fine = noise(rng, height, max(width // 6, 2), 16, 3, 0.8)
    if rng.random() < 0.5:
        fine = noise(rng, max(height // 6, 2), width, 16, 3, 0.8)
    stretched = np.asarray(Image.fromarray(fine).resize((width, height), Image.Resampling.BILINEAR))
    return mix(np.clip(stretched * 1.3 - 0.15, 0, 1), *two_colors(rng))


FAMILIES = {
    "gradient": gradient,
    "cloudy": cloudy,
    "stripes": stripes,
    "checker": checker,
    "blobs": blobs,
    "bricks": bricks,
    "grain": grain,
}


def surface(rng, height: int, width: int) -> np.ndarray:
    """A texture [height, width, 3] of a family drawn at random."""
    return FAMILIES[list(FAMILIES)[rng.integers(len(FAMILIES))]](rng, height, width)


PATTERNS = {
    "plain": lambda x, y, noise: 0.25 * noise,
    "bands": lambda x, y, noise: (np.floor(2 * y) % 2).astype(np.float32),
    "pales": lambda x, y, noise: (np.floor(2 * x) % 2).astype(np.float32),
    "checks": lambda x, y, noise: ((np.floor(2 * x) + np.floor(2 * y)) % 2).astype(np.float32),
    "spots": lambda x, y, noise: np.clip(
        (np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y) - 0.1) * 6, 0, 1
    ),
    "patches": lambda x, y, noise: np.clip((noise - 0.55) * 12, 0, 1),
    "fur": lambda x, y, noise: noise,
}
