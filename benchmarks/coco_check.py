"""Time to check an annotation file of COCO's size before a transfer, beside the time to parse it.

    python benchmarks/coco_check.py [--images 118287] [--objects 860001] [--masks polygons]

Writes a file with as many images, objects and numbers as COCO's train2017 (empty files stand for
images but for the sample that is opened), and reads it as ``densessl transfer --protocol
custom_mask`` does: every entry, id, box and mask. ``--masks rle``: every mask a compressed RLE.
Seconds are of this process alone (CPU), as other work on the machine would count in those of a
clock, which stand behind. About 4 GiB of memory with polygons.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from densessl.d2_transfer.datasets import custom_reading
from densessl.d2_transfer.datasets.coco_content import no_garbage_collection
from densessl.d2_transfer.datasets.inspection import spread

WIDTH, HEIGHT, CATEGORIES = 640, 480, 80
POINTS = 35  # of a polygon, on average: COCO's files have some 60 million numbers
SHAPES = 400  # different run lengths


def write_images(folder: Path, count: int) -> list[dict]:
    """The entries of images whose files are empty, but for the sample that the check opens."""
    names = [f"{number:012d}.jpg" for number in range(count)]
    for name in names:
        (folder / name).touch()
    for name in spread(names):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
    size = {"width": WIDTH, "height": HEIGHT}
    return [{"id": number, "file_name": name, **size} for number, name in enumerate(names, 1)]


def ellipse(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half axes, in pixels, within the image."""
    axes = rng.gamma(2, 20, 2).clip(2, 200)
    return rng.uniform(axes, (WIDTH, HEIGHT) - axes), axes


def run_lengths(rng: np.random.Generator) -> dict:
    (x, y), (a, b) = ellipse(rng)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1
    encoded = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    box, area = coco_mask.toBbox(encoded).tolist(), float(coco_mask.area(encoded))
    mask = {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}
    return {"segmentation": mask, "bbox": box, "area": area}


def polygon(rng: np.random.Generator) -> dict:
    centre, axes = ellipse(rng)
    angle = np.linspace(0, 2 * np.pi, 3 + rng.poisson(POINTS - 3))
    points = centre + axes * np.column_stack((np.cos(angle), np.sin(angle)))
    box = [*(centre - axes).tolist(), *(2 * axes).tolist()]
    area = float(np.pi * axes.prod())
    return {"segmentation": [points.round(2).ravel().tolist()], "bbox": box, "area": area}


def write_objects(images: list[dict], count: int, masks: str, file: Path) -> None:
    rng = np.random.default_rng(0)
    owners = np.sort(rng.integers(1, len(images) + 1, count)).tolist()
    shapes = [run_lengths(rng) for _ in range(SHAPES)] if masks == "rle" else []
    annotations = (
        {
            **{"id": number, "image_id": owner, "category_id": number % CATEGORIES, "iscrowd": 0},
            **(shapes[number % SHAPES] if shapes else polygon(rng)),
        }
        for number, owner in enumerate(owners, 1)
    )
    categories = [{"id": number, "name": f"class {number}"} for number in range(CATEGORIES)]
    with open(file, "w") as stream:
        stream.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, ')
        stream.write('"annotations": [')
        for number, each in enumerate(annotations):
            stream.write(("," if number else "") + json.dumps(each))
        stream.write("]}")


def parse(file: Path) -> None:
    with no_garbage_collection():
        json.loads(file.read_bytes())


def measure(work) -> tuple[float, float, object]:
    """Seconds of CPU and of the clock, and the result."""
    began, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.process_time() - cpu, time.perf_counter() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118287)
    parser.add_argument("--objects", type=int, default=860001)
    parser.add_argument("--masks", choices=("polygons", "rle"), default="polygons")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name) / "train.json", Path(name) / "images"
        folder.mkdir()
        write_objects(write_images(folder, args.images), args.objects, args.masks, file)
        parsed = measure(lambda: parse(file))
        checked = measure(lambda: custom_reading.read(file, folder, True, True))
        if checked[2].problems or len(checked[2].trained) == 0:
            sys.exit(f"a right file was refused: {checked[2].problems}")
        size = file.stat().st_size / 1e6
    print(f"{args.images} images, {args.objects} objects with {args.masks}, {size:.0f} MB")
    for what, (cpu, clock, _) in (("parse the JSON", parsed), ("read and check it", checked)):
        print(f"{what}: {cpu:.1f} s of CPU ({clock:.1f} s by the clock)")


if __name__ == "__main__":
    main()
