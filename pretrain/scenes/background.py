"""What stands behind, between and before the objects: places, clutter, shadows, light."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import textures
from .canvas import Canvas
from .figure import rotation
from .render import solid


def paint_place(canvas: Canvas, rng) -> float:
    """Paint a street, a meadow, a room or a bare surface; returns the horizon's y in pixels."""
    place = (street, meadow, room, bare)[rng.choice(4, p=[0.3, 0.25, 0.25, 0.2])]
    return place(canvas, rng)


def _everything(canvas: Canvas) -> np.ndarray:
    return np.ones((canvas.size, canvas.size), bool)


def _below(canvas: Canvas, y) -> np.ndarray:
    """Bool [S, S]: pixels at or below ``y`` (a number, or one for each column)."""
    return np.arange(canvas.size)[:, None] >= np.broadcast_to(y, canvas.size)[None, :]


def _sky(canvas: Canvas, rng) -> None:
    """Two tones from top to bottom, and clouds."""
    size = canvas.size
    high = textures.color(rng, (0.52, 0.66), (0.15, 0.75), (0.45, 0.95))
    low = np.clip(high * 0.5 + textures.color(rng, (0.0, 0.15), (0, 0.4), (0.7, 1.0)) * 0.55, 0, 1)
    down = np.linspace(0, 1, size, dtype=np.float32)[:, None] ** rng.uniform(0.5, 1.5)
    sky = textures.mix(np.broadcast_to(down, (size, size)), high, low)
    cloud = np.clip((textures.noise(rng, size, size, 3, 5) - rng.uniform(0.4, 0.8)) * 3, 0, 0.9)
    canvas.paint("sky", _everything(canvas), sky + cloud[..., None] * (0.95 - sky))


def _ground(canvas: Canvas, rng, label: str, y, hue, saturation, value) -> None:
    """A rough surface below ``y``, finer and darker towards the horizon."""
    size = canvas.size
    tone = textures.color(rng, hue, saturation, value)
    rough = textures.noise(rng, size, size, int(rng.integers(6, 30)), 4, 0.8)
    colors = textures.mix(rough, tone * rng.uniform(0.55, 0.8), np.clip(tone * 1.2, 0, 1))
    canvas.paint(label, _below(canvas, y), colors)


def _trees(canvas: Canvas, rng, horizon: float) -> None:
    """A row of crowns along the horizon."""
    size = canvas.size
    x = np.arange(size)
    heights = np.zeros(size)
    for _ in range(rng.integers(2, 7)):
        middle, radius = rng.uniform(0, size), rng.uniform(0.06, 0.22) * size
        heights = np.maximum(heights, np.sqrt(np.clip(radius**2 - (x - middle) ** 2, 0, None)))
    ragged = heights * (0.85 + 0.3 * textures.noise(rng, 1, size, 16, 2)[0])
    tone = textures.color(rng, (0.2, 0.4), (0.25, 0.8), (0.2, 0.6))
    leaves = textures.noise(rng, size, size, 14, 4, 0.9)
    mask = _below(canvas, horizon - ragged) & ~_below(canvas, horizon + 1) & (heights > 0)
    canvas.paint("tree", mask, textures.mix(leaves, tone * 0.45, np.clip(tone * 1.3, 0, 1)))


def _buildings(canvas: Canvas, rng, horizon: float) -> None:
    """A skyline of facades with gaps between them."""
    size, left = canvas.size, rng.uniform(-0.2, 0.1) * canvas.size
    while left < size and horizon > 0.1 * size:
        width = rng.uniform(0.12, 0.4) * size
        if rng.random() < 0.75:
            top = horizon * rng.uniform(0.0, 0.75)
            rows, columns = np.mgrid[:size, :size]
            mask = (columns >= left) & (columns < left + width) & (rows >= top) & (rows <= horizon)
            if mask.any():
                canvas.paint("building", mask, _facade(rng, rows - top, columns - left, size))
        left += width * rng.uniform(0.85, 1.3)


def _facade(rng, rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
    """A wall with a grid of windows, some of them lit."""
    wall = textures.color(rng, (0.0, 0.2), (0.0, 0.5), (0.3, 0.85))
    pane = textures.color(rng, (0.5, 0.7), (0.0, 0.4), (0.1, 0.6))
    step_y, step_x = rng.uniform(0.05, 0.1, 2) * size
    fill = rng.uniform(0.35, 0.7)
    window = ((rows / step_y) % 1 < fill) & ((columns / step_x) % 1 < fill)
    lit = (np.sin(np.floor(rows / step_y) * 91.7 + np.floor(columns / step_x) * 37.3) * 1e4) % 1
    glow = np.where((lit > 0.8)[..., None], np.array([0.95, 0.85, 0.55]), pane)
    rough = 0.85 + 0.3 * textures.noise(rng, size, size, 8, 3)[..., None]
    return np.where(window[..., None], glow, wall * rough).astype(np.float32)


def street(canvas: Canvas, rng) -> float:
    """Sky, buildings, a sidewalk and a road."""
    size = canvas.size
    horizon = rng.uniform(0.3, 0.6) * size
    _sky(canvas, rng)
    if rng.random() < 0.4:
        _trees(canvas, rng, horizon)
    _buildings(canvas, rng, horizon)
    _ground(canvas, rng, "sidewalk", horizon, (0.0, 0.15), (0.0, 0.25), (0.45, 0.8))
    curb = horizon + rng.uniform(0.05, 0.2) * size
    _ground(canvas, rng, "road", curb, (0.5, 0.8), (0.0, 0.15), (0.2, 0.5))
    if rng.random() < 0.7:  # lane marks
        y = rng.uniform(curb, size)
        x = (np.arange(size)[None] / size * rng.uniform(3, 8) + rng.random()) % 1
        rows = np.arange(size)[:, None]
        marks = (np.abs(rows - y) < size * 0.008 + 0.5) & (x < 0.55) & (rows > curb)
        canvas.color[marks] = canvas.color[marks] * 0.2 + 0.75
    return horizon


def meadow(canvas: Canvas, rng) -> float:
    """Sky, trees, a hilly meadow."""
    size = canvas.size
    horizon = rng.uniform(0.25, 0.6) * size
    _sky(canvas, rng)
    hills = horizon - rng.uniform(0.02, 0.15) * size * textures.noise(rng, 1, size, 2, 2)[0]
    if rng.random() < 0.7:
        _trees(canvas, rng, horizon)
    _ground(canvas, rng, "grass", hills, (0.1, 0.36), (0.25, 0.75), (0.3, 0.75))
    return horizon


def room(canvas: Canvas, rng) -> float:
    """A wall and a floor, each of any texture."""
    size = canvas.size
    edge = rng.uniform(0.45, 0.8) * size
    tilted = edge + (np.arange(size) - size / 2) * rng.uniform(-0.15, 0.15)
    canvas.paint("wall", _everything(canvas), textures.surface(rng, size, size))
    canvas.paint("floor", _below(canvas, tilted), textures.surface(rng, size, size))
    return edge


def bare(canvas: Canvas, rng) -> float:
    """One texture everywhere."""
    canvas.paint("wall", _everything(canvas), textures.surface(rng, canvas.size, canvas.size))
    return rng.uniform(0.2, 0.6) * canvas.size


def clutter_shape(canvas: Canvas, rng, largest: float):
    """A shape that is no object: its mask [S, S], its softly drawn alpha and its colours."""
    size = canvas.size
    center = rng.uniform(-0.05, 1.05, 2) * size
    radius = largest * size * rng.uniform(0.15, 1.0)
    kind = rng.choice(["star", "box", "stick", "pebble"])
    turn = np.linspace(0, 2 * np.pi, int(rng.integers(3, 9)), endpoint=False)
    if kind == "star":
        reach = radius * rng.uniform(0.4, 1.0, len(turn))
        points = reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    elif kind == "pebble":
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        points = radius * np.stack([np.cos(turn), rng.uniform(0.3, 1.0) * np.sin(turn)], 1)
    else:
        thin = rng.uniform(0.04, 0.12) if kind == "stick" else rng.uniform(0.3, 1.0)
        half = radius * np.array([1.0, thin])
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    points = points @ rotation(rng.uniform(0, np.pi)).T + center
    outline = Image.new("L", (size * 2, size * 2), 0)
    ImageDraw.Draw(outline).polygon([tuple(p) for p in (points * 2 - 0.5).tolist()], fill=255)
    alpha = np.asarray(outline.reduce(2), np.float32) / 255
    return solid(alpha >= 0.5), alpha, textures.surface(rng, size, size)


def contact_shadow(canvas: Canvas, foot: tuple[float, float], width: float, strength: float):
    """The dark patch on the ground under an object that stands at ``foot``."""
    size = canvas.size
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    distance = ((columns - foot[0]) / (width * 0.55)) ** 2 + (
        (rows - foot[1]) / (width * 0.13)
    ) ** 2
    canvas.darken(1 - strength * np.exp(-distance))


def light_direction(rng) -> np.ndarray:
    """Where light comes from, [2] on the screen: mostly from above."""
    angle = rng.uniform(-2.6, -0.5)
    return np.array([np.cos(angle), np.sin(angle)])


def illuminate(colors: np.ndarray, rng, light: np.ndarray) -> np.ndarray:
    """Light, shadow, colour cast, exposure, blur and sensor noise: uint8 [S, S, 3]."""
    size = len(colors)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    slope = (columns * light[0] + rows * light[1]) * rng.uniform(0, 0.7)
    lit = colors * (1 + slope)[..., None]
    if rng.random() < 0.35:  # something out of sight throws a shadow
        angle, place, width = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3), rng.uniform(0.05, 0.25)
        away = np.abs(columns * np.cos(angle) + rows * np.sin(angle) - place)
        lit *= 1 - (rng.uniform(0.2, 0.5) * np.clip((width - away) * 20, 0, 1))[..., None]
    lit = lit * rng.uniform(0.85, 1.15, 3)  # the colour cast
    exposed = np.clip(lit, 0, 1) ** rng.uniform(0.75, 1.35) * rng.uniform(0.8, 1.1)
    picture = Image.fromarray((np.clip(exposed, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.25:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9) * size / 160))
    grain = rng.normal(0, rng.uniform(0, 7), (size, size, 1))
    return np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
