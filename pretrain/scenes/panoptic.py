"""COCO's panoptic layout: ``coco/panoptic_SPLIT2017``, its JSON in ``coco/annotations``, and
``coco/panoptic_stuff_SPLIT2017`` as Detectron2 reads it."""

import json
from pathlib import Path

import numpy as np

from densessl.annotations.coco import PANOPTIC_STUFF
from densessl.core import files

from . import store
from .coco import FOLDERS
from .generate import Scene
from .labels import LABELS

FIRST = 1000  # number of a segment of stuff: this and its category id; objects have those below


def write_image(root: Path, split: str, number: int, scene: Scene) -> list[dict]:
    """Write one scene's segments as colours, and its stuff; returns what the JSON has of them."""
    kinds = scene.semantic(lambda label: LABELS[label].panoptic)
    pixels = np.where(kinds > 0, kinds + FIRST, 0)
    categories = {FIRST + kind: kind for kind in np.unique(kinds).tolist() if kind}
    for place, instance in enumerate(scene.instances, start=1):
        pixels[instance.mask] = place
        categories[place] = LABELS[instance.category].coco
    name = f"{number:012d}.png"
    colours = np.stack([pixels % 256, pixels // 256, pixels // 65536], axis=2).astype(np.uint8)
    store.save_png(root / "coco" / f"panoptic_{FOLDERS[split]}" / name, colours)
    stuff, found = np.full(pixels.shape, 255, np.uint8), []
    for segment, category in categories.items():
        mask = pixels == segment
        stuff[mask] = PANOPTIC_STUFF.index(category) + 1 if segment >= FIRST else 0
        if mask.any():
            found.append(_segment(segment, category, mask))
    store.save_png(root / "coco" / f"panoptic_stuff_{FOLDERS[split]}" / name, stuff)
    return found


def _segment(segment: int, category: int, mask: np.ndarray) -> dict:
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        "id": segment,
        "category_id": category,
        "area": int(mask.sum()),
        "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
        "iscrowd": 0,
    }


def write_json(root: Path, split: str, size: int, records: list[dict]) -> None:
    """Write the JSON of a split, whose categories are COCO's numbers."""
    things = sorted({each["category_id"] for r in records for each in r["objects"]})
    content = {
        "info": {"description": "DenseSSL scenes, procedural", "version": "1"},
        "licenses": [],
        "images": [
            {
                "id": record["number"],
                "file_name": f"{record['number']:012d}.jpg",
                "width": size,
                "height": size,
            }
            for record in records
        ],
        "annotations": [
            {
                "image_id": record["number"],
                "file_name": f"{record['number']:012d}.png",
                "segments_info": record["segments"],
            }
            for record in records
        ],
        "categories": [
            {"id": number, "name": str(number), "isthing": int(number in things)}
            for number in (*things, *PANOPTIC_STUFF)
        ],
    }
    text = json.dumps(content, separators=(",", ":")) + "\n"
    files.write_text(root / "coco" / "annotations" / f"panoptic_{FOLDERS[split]}.json", text)
