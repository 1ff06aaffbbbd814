"""ADE20K's layout: ``ADEChallengeData2016/{images,annotations}/{training,validation}``."""

from pathlib import Path

import numpy as np

from . import store
from .generate import Scene
from .labels import LABELS

FOLDERS = {"train": "training", "val": "validation"}


def write_image(root: Path, split: str, number: int, scene: Scene, jpeg: Path) -> None:
    """Link one scene's image and write its labels: 1 to 150, 0 for other.

    ``annotations_detectron2`` holds label − 1, and 255 for other, as Detectron2 reads it.
    """
    folder = root / "ADEChallengeData2016"
    name = f"ADE_{split}_{number:08d}"
    store.link(jpeg, folder / "images" / FOLDERS[split] / f"{name}.jpg")
    labels = scene.semantic(lambda label: LABELS[label].ade).astype(np.uint8)
    store.save_png(folder / "annotations" / FOLDERS[split] / f"{name}.png", labels)
    shifted = labels - np.uint8(1)  # 0 wraps to 255
    store.save_png(folder / "annotations_detectron2" / FOLDERS[split] / f"{name}.png", shifted)
