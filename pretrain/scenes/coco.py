"""COCO's layout: ``coco/{train2017,val2017}``, ``coco/annotations`` and, as COCO-Stuff has them,
``coco/stuffthingmaps/{train2017,val2017}``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from densessl.core import files

from . import store
from .contours import edge_polygons
from .generate import Scene
from .labels import LABELS
from .people import KEYPOINTS, SKELETON

FOLDERS = {"train": "train2017", "val": "val2017"}

# COCO's 80 categories: supercategory, then "id name".
CATEGORIES = {
    "person": "1 person",
    "vehicle": "2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat",
    "outdoor": "10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench",
    "animal": "16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, "
    "24 zebra, 25 giraffe",
    "accessory": "27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase",
    "sports": "34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, "
    "40 baseball glove, 41 skateboard, 42 surfboard, 43 tennis racket",
    "kitchen": "44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl",
    "food": "52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, "
    "59 pizza, 60 donut, 61 cake",
    "furniture": "62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet",
    "electronic": "72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone",
    "appliance": "78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator",
    "indoor": "84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier, "
    "90 toothbrush",
}


def image_path(root: Path, split: str, number: int) -> Path:
    """Where a scene's JPEG is stored; the other layouts link to it."""
    return root / "coco" / FOLDERS[split] / f"{number:012d}.jpg"


def annotations(scene: Scene, number: int) -> list[dict]:
    """The image's objects as COCO writes them: exact areas, boxes and outlines."""
    found = []
    for place, instance in enumerate(scene.instances):
        x1, y1, x2, y2 = instance.box
        entry = {
            "id": number * 100 + place + 1,
            "image_id": number,
            "category_id": LABELS[instance.category].coco,
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "area": float(instance.area),
            "iscrowd": 0,
            "segmentation": edge_polygons(instance.mask),
        }
        if instance.keypoints is not None:
            entry["keypoints"] = instance.keypoints.ravel().tolist()
            entry["num_keypoints"] = int(np.count_nonzero(instance.keypoints[:, 2]))
        found.append(entry)
    return found


def write_stuff(root: Path, split: str, number: int, scene: Scene) -> None:
    """Write one scene's labels as COCO-Stuff has them: the number less 1, 255 for none."""
    numbers = scene.semantic(lambda label: LABELS[label].coco or LABELS[label].stuff)
    labels = np.where(numbers == 0, 255, numbers - 1).astype(np.uint8)
    store.save_png(root / "coco" / "stuffthingmaps" / FOLDERS[split] / f"{number:012d}.png", labels)


def write_json(root: Path, split: str, size: int, records: list[dict]) -> None:
    """Write the instances and the person_keypoints file of a split."""
    images = [
        {"id": r["number"], "file_name": f"{r['number']:012d}.jpg", "width": size, "height": size}
        for r in records
    ]
    categories: list[dict[str, Any]] = [
        {"supercategory": group, "id": int(entry.split(" ", 1)[0]), "name": entry.split(" ", 1)[1]}
        for group, entries in CATEGORIES.items()
        for entry in entries.split(", ")
    ]
    categories.sort(key=lambda category: category["id"])
    objects = [entry for record in records for entry in record["objects"]]
    keys = ("keypoints", "num_keypoints")
    instances = [{k: v for k, v in entry.items() if k not in keys} for entry in objects]
    _write(root, f"instances_{FOLDERS[split]}", images, instances, categories)
    person = {
        **categories[0],
        "keypoints": list(KEYPOINTS),
        "skeleton": [list(s) for s in SKELETON],
    }
    people = [entry for entry in objects if "keypoints" in entry]
    _write(root, f"person_keypoints_{FOLDERS[split]}", images, people, [person])


def _write(root: Path, name: str, images, objects, categories) -> None:
    content = {
        "info": {"description": "DenseSSL scenes, procedural", "version": "1"},
        "licenses": [],
        "images": images,
        "annotations": objects,
        "categories": categories,
    }
    text = json.dumps(content, separators=(",", ":")) + "\n"
    files.write_text(root / "coco" / "annotations" / f"{name}.json", text)
