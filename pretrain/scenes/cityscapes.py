"""Cityscapes' layout: ``cityscapes/{leftImg8bit,gtFine}/{train,val}/scenes``.

The polygons are painted from back to front, and painting them gives the label images exactly.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import ndimage

from . import store
from .canvas import Layer
from .contours import center_polygon
from .generate import Scene
from .labels import LABELS

CITY = "scenes"


def write_image(root: Path, split: str, number: int, scene: Scene) -> None:
    """Write one scene's image (lossless), label images and polygons."""
    folder = root / "cityscapes"
    name = f"{CITY}_{number:06d}_000000"
    store.save_png(folder / "leftImg8bit" / split / CITY / f"{name}_leftImg8bit.png", scene.image)
    fine = folder / "gtFine" / split / CITY
    maps: dict[str, np.ndarray] = {
        "labelIds": scene.semantic(lambda label: LABELS[label].cityscapes[1]).astype(np.uint8),
        "labelTrainIds": scene.semantic(lambda label: LABELS[label].cityscapes[2]).astype(np.uint8),
        "instanceIds": instance_ids(scene).astype(np.uint16),  # Pillow cannot write 32 bits
        "color": _colors(scene),
    }
    for kind, values in maps.items():
        store.save_png(fine / f"{name}_gtFine_{kind}.png", values)
    (fine / f"{name}_gtFine_polygons.json").write_text(polygons(scene), encoding="utf-8")


def instance_ids(scene: Scene) -> np.ndarray:
    """Cityscapes' label id, or for people and vehicles id · 1000 + number: int [S, S]."""
    ids = [0]
    counts: Counter[str] = Counter()
    for layer in scene.layers:
        name, label_id, train_id, _ = LABELS[layer.label].cityscapes
        if layer.instance is not None and train_id != 255:
            ids.append(label_id * 1000 + counts[name])
            counts[name] += 1
        else:
            ids.append(label_id)
    return np.array(ids)[scene.order]


def _colors(scene: Scene) -> np.ndarray:
    colors = [(0, 0, 0, 255)]
    colors += [(*LABELS[layer.label].cityscapes[3], 255) for layer in scene.layers]
    return np.array(colors, np.uint8)[scene.order]


def polygons(scene: Scene) -> str:
    """The annotation JSON: every layer's outline, from back to front."""
    objects = [
        {"label": LABELS[layer.label].cityscapes[0], "polygon": polygon}
        for layer in scene.layers
        for polygon in _outlines(layer)
    ]
    height, width = scene.order.shape
    content = {"imgHeight": height, "imgWidth": width, "objects": objects}
    return json.dumps(content, separators=(",", ":")) + "\n"


def _outlines(layer: Layer) -> list[list[tuple[int, int]]]:
    if layer.instance is not None:
        return [center_polygon(layer.mask)]
    pieces, count = ndimage.label(layer.mask)
    outlines = [center_polygon(pieces == piece) for piece in range(1, count + 1)]
    return [outline + outline[-1:] * (3 - len(outline)) for outline in outlines]
