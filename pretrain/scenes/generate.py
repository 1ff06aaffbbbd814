"""One scene: a function of the seed, the split and the index, and of nothing else."""

from dataclasses import dataclass

import numpy as np

from . import animals, background, people, vehicles
from .canvas import Canvas, Layer
from .figure import Figure, rotation
from .labels import CLASSES
from .render import Patch, render

BUILDERS = {
    "person": people.person,
    "bicycle": vehicles.bicycle,
    "car": vehicles.car,
    "bus": vehicles.bus,
    "bird": animals.bird,
    "dog": animals.dog,
    "horse": animals.horse,
    "sheep": animals.sheep,
}
SPLITS = {"train": 0, "val": 1}
MIN_SCALE, MAX_SCALE = 1 / 16, 1 / 2  # longer side of an object's box, in image sides
MIN_VISIBLE = 0.3  # share of an object's pixels that nothing covers
MIN_INSIDE = 0.6  # share of its pixels that is inside the image


@dataclass
class Instance:
    """An object. ``mask`` bool [S, S]: the visible pixels that its outline encloses.

    ``box`` (x1, y1, x2, y2) are the pixel edges of the mask. ``keypoints [17, 3]`` (people only)
    are x, y as pixel indices and COCO's flag: 2 seen, 1 hidden, 0 outside the image (x = y = 0).
    ``visible`` is the share of its pixels in the image that nothing covers.
    """

    category: str
    mask: np.ndarray
    box: tuple[int, int, int, int]
    visible: float
    truncated: bool
    pose: str
    keypoints: np.ndarray | None = None

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    @property
    def difficult(self) -> bool:
        """Mostly covered, or tiny: VOC's flag."""
        x1, y1, x2, y2 = self.box
        return self.visible < 0.5 or max(x2 - x1, y2 - y1) < len(self.mask) / 12


@dataclass
class Scene:
    """``image`` uint8 [S, S, 3] RGB; ``layers`` from back to front; ``order`` which is seen.

    ``order`` int32 [S, S] holds the number (from 1) of the topmost layer of each pixel.
    """

    image: np.ndarray
    layers: list[Layer]
    order: np.ndarray
    instances: list[Instance]

    def semantic(self, value) -> np.ndarray:
        """A map [S, S] of ``value(label name)``."""
        values = [0] + [value(layer.label) for layer in self.layers]
        return np.array(values)[self.order]

    @property
    def main(self) -> Instance:
        """The object with the most visible pixels."""
        return max(self.instances, key=lambda instance: instance.area)


def generate(seed: int, index: int, size: int, split: str = "train") -> Scene:
    """Scene number ``index`` of a split, ``size`` pixels square."""
    rng = np.random.default_rng([seed, SPLITS[split], index])
    canvas = Canvas(size)
    light = background.light_direction(rng)
    horizon = background.paint_place(canvas, rng)
    for _ in range(rng.integers(0, 8)):
        mask, alpha, colors = background.clutter_shape(canvas, rng, 0.2)
        canvas.paint("clutter", mask, colors, alpha)

    patches = _arrange(rng, size, horizon, light, _main_class(seed, index, split))
    shadow = rng.uniform(0.2, 0.6)
    for number, patch in enumerate(patches):
        if patch.figure.grounded:
            height, width = patch.mask.shape
            foot = (patch.corner[0] + width / 2, patch.corner[1] + height - 2)
            background.contact_shadow(canvas, foot, width, shadow)
        canvas.paint_patch(patch.figure.category, patch, number)
    for _ in range(rng.integers(0, 3)):
        mask, alpha, colors = background.clutter_shape(canvas, rng, 0.12)
        if _all_stay_visible([patch.full_mask(size) for patch in patches], mask):
            canvas.paint("clutter", mask, colors, alpha)

    order = canvas.order()
    image = background.illuminate(canvas.color, rng, light)
    return Scene(image, canvas.layers, order, _instances(patches, canvas.layers, order))


def _main_class(seed: int, index: int, split: str) -> str:
    """The class of a scene's largest object: every block of len(CLASSES) scenes has each once."""
    block, place = divmod(index, len(CLASSES))
    rng = np.random.default_rng([seed, SPLITS[split], block, len(CLASSES)])
    return CLASSES[rng.permutation(len(CLASSES))[place]]


def _arrange(rng, size: int, horizon: float, light, main: str) -> list[Patch]:
    """Figures from back to front: first the largest one, then others that leave all in sight."""
    largest = _place(rng, size, horizon, light, main, rng.uniform(0.28, MAX_SCALE), None)
    while largest is None:
        largest = _place(rng, size, horizon, light, main, rng.uniform(0.28, MAX_SCALE), None)
    patches = [largest]
    for _ in range(rng.integers(0, 7)):
        scale = np.exp(rng.uniform(np.log(MIN_SCALE), np.log(0.4)))
        category = str(rng.choice(CLASSES))
        patch = _place(rng, size, horizon, light, category, scale, patches)
        if patch is None:
            continue
        # Who stands lower in the image is nearer to the viewer.
        tried = sorted([*patches, patch], key=lambda p: p.corner[1] + p.mask.shape[0])
        shown = _visible([p.full_mask(size) for p in tried])
        first = next(mask for p, mask in zip(tried, shown, strict=True) if p is largest).sum()
        rest = [m.sum() for p, m in zip(tried, shown, strict=True) if p is not largest]
        if _all_stay_visible([p.full_mask(size) for p in tried]) and first > max(rest):
            patches = tried
    return patches


def _place(rng, size: int, horizon: float, light, category: str, scale: float, others):
    """A figure of one class somewhere in the image, or None when too little of it is inside."""
    figure: Figure = BUILDERS[category](rng)
    if category != "person" and rng.random() < 0.5:
        figure.transform(np.diag([-1.0, 1.0]))
        figure.pose = "Left"
    figure.transform(rotation(rng.normal(0, 0.06 if figure.grounded else 0.2)))
    length = scale * size
    low, high = figure.bounds()
    height = length * float((high - low)[1] / (high - low).max())
    x = rng.uniform(0.0, 1.0) * size
    if others and rng.random() < 0.35:  # near another one: occlusion
        other = others[rng.integers(len(others))]
        x = other.corner[0] + rng.uniform(-0.1, 1.1) * other.mask.shape[1]
    foot = rng.uniform(max(horizon, height * 0.7), size * 1.04)
    y = foot - height / 2 if figure.grounded else rng.uniform(0.05, 0.9) * size
    patch = render(figure, rng, (x, y), length, light, size)
    inside = patch.mask.sum()
    return patch if inside > max(4, MIN_INSIDE * patch.area) else None


def _visible(masks: list[np.ndarray]) -> list[np.ndarray]:
    """What is left of each mask under the ones after it."""
    covered = np.zeros_like(masks[0])
    shown = []
    for mask in reversed(masks):
        shown.append(mask & ~covered)
        covered = covered | mask
    return shown[::-1]


def _all_stay_visible(masks: list[np.ndarray], above: np.ndarray | None = None) -> bool:
    """Whether each mask keeps MIN_VISIBLE of its pixels under the later ones and ``above``."""
    shown = _visible(masks)
    if above is not None:
        shown = [mask & ~above for mask in shown]
    return all(s.sum() >= MIN_VISIBLE * m.sum() for s, m in zip(shown, masks, strict=True))


def _instances(patches: list[Patch], layers: list[Layer], order: np.ndarray) -> list[Instance]:
    """The truth about each object, read from which layer is seen where."""
    number_of = {layer.instance: n for n, layer in enumerate(layers, start=1)}
    found = []
    for number, patch in enumerate(patches):
        mask = order == number_of[number]
        full = layers[number_of[number] - 1].mask
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        found.append(
            Instance(
                category=patch.figure.category,
                mask=mask,
                box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
                visible=float(mask.sum() / full.sum()),
                truncated=bool(full.sum() < patch.area),
                pose=patch.figure.pose,
                keypoints=_keypoints(patch, mask) if patch.figure.keypoints else None,
            )
        )
    return found


def _keypoints(patch: Patch, mask: np.ndarray) -> np.ndarray:
    """COCO's x, y, flag of each joint: int64 [17, 3]."""
    size = len(mask)
    rows = []
    for number, (x, y) in enumerate(np.floor(patch.keypoints).astype(int)):
        if not (0 <= x < size and 0 <= y < size):
            rows.append((0, 0, 0))
        else:
            rows.append((x, y, 2 if mask[y, x] and patch.shows(number) else 1))
    return np.array(rows)
