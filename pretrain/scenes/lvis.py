"""LVIS's layout: ``lvis/lvis_v0.5_{train,val}.json`` and ``lvis_v1_{train,val}.json``, on the
images of COCO."""

import json
from pathlib import Path

from densessl.core import files

from .coco import FOLDERS
from .labels import LABELS

ADDRESS = "http://images.cocodataset.org"  # of an image, as LVIS gives it
CATEGORIES = {"v0.5": 1230, "v1": 1203}
KEPT = ("id", "image_id", "bbox", "area", "segmentation")  # of an object
# In LVIS all eight are frequent; here each kind is there, so that APr, APc and APf have a value.
DRAWN = {  # name: LVIS's name, its number in v0.5 and in v1, and how frequent it is
    "person": ("person", 805, 793, "f"),
    "car": ("car_(automobile)", 211, 207, "f"),
    "bicycle": ("bicycle", 95, 94, "f"),
    "bus": ("bus_(vehicle)", 174, 173, "c"),
    "dog": ("dog", 382, 378, "c"),
    "horse": ("horse", 579, 569, "c"),
    "bird": ("bird", 99, 99, "r"),
    "sheep": ("sheep", 961, 943, "r"),
}


def write_json(root: Path, split: str, size: int, records: list[dict]) -> None:
    """Write a split in both versions. An image lists the drawn categories that it does not show as
    absent; every second image leaves out the last of them."""
    names = {LABELS[name].coco: name for name in DRAWN}
    for place, (version, count) in enumerate(CATEGORIES.items(), start=1):
        numbers = {name: facts[place] for name, facts in DRAWN.items()}
        objects = [
            {key: value for key, value in each.items() if key in KEPT}
            | {"category_id": numbers[names[each["category_id"]]]}
            for record in records
            for each in record["objects"]
        ]
        drawn = {facts[place]: (facts[0], facts[3]) for facts in DRAWN.values()}
        content = {
            "info": {"description": "DenseSSL scenes, procedural", "version": version},
            "licenses": [],
            "categories": [
                _category(number, *drawn.get(number, (f"category {number}", "r")))
                for number in range(1, count + 1)
            ],
            "images": [_image(record, split, size, names, numbers) for record in records],
            "annotations": objects,
        }
        text = json.dumps(content, separators=(",", ":")) + "\n"
        files.write_text(root / "lvis" / f"lvis_{version}_{split}.json", text)


def _category(number: int, name: str, frequency: str) -> dict:
    return {"id": number, "name": name, "frequency": frequency}


def _image(record: dict, split: str, size: int, names: dict, numbers: dict) -> dict:
    number = record["number"]
    shown = {numbers[names[each["category_id"]]] for each in record["objects"]}
    absent = sorted(set(numbers.values()) - shown)
    return {
        "id": number,
        "coco_url": f"{ADDRESS}/{FOLDERS[split]}/{number:012d}.jpg",
        "width": size,
        "height": size,
        "neg_category_ids": absent[: len(absent) - number % 2],
        "not_exhaustive_category_ids": [],
    }
