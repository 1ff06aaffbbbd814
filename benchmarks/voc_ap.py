"""Time of the VOC metric against Detectron2's own evaluator, on the same detections, side by side.

    python benchmarks/voc_ap.py [--images 1000] [--detections 30] [--year 2007] [--repeats 3]

A synthetic split: XML files with 3 objects an image of VOC's 20 classes, one in five difficult, and
detections near them and elsewhere with scores of three decimals, many of them equal. VOC 2007's
test set has 4952 images (--images 4952); the default is a fifth of that. Each repeat runs both, in
turn, from new evaluators (Detectron2's memory of the XML files emptied, as in a new process):
taking the detections in, and evaluating. Ends with exit code 1 when the numbers are not the same to
the last bit.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from densessl.d2_transfer import compat
from densessl.d2_transfer.evaluation.pascal_voc import OccurringClassesVOCEvaluator

compat.setup()
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.data.datasets.pascal_voc import CLASS_NAMES  # noqa: E402
from detectron2.evaluation import PascalVOCDetectionEvaluator  # noqa: E402
from detectron2.evaluation.pascal_voc_evaluation import parse_rec  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402

OBJECTS, SIDE = 3, 500  # in an image; its pixels
EVALUATORS = {"Detectron2": PascalVOCDetectionEvaluator, "ours": OccurringClassesVOCEvaluator}


def write_objects(file: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image's XML file; its boxes [M, 4] and classes [M]."""
    corner = rng.integers(1, SIDE - 200, (OBJECTS, 2))
    boxes = np.concatenate((corner, corner + rng.integers(20, 200, (OBJECTS, 2))), axis=1)
    labels = rng.integers(len(CLASS_NAMES), size=OBJECTS)
    items = "".join(
        f"<object><name>{CLASS_NAMES[label]}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{int(rng.random() < 0.2)}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, (x1, y1, x2, y2) in zip(labels, boxes, strict=True)
    )
    file.write_text(f"<annotation>{items}</annotation>")
    return boxes, labels


def detect(
    boxes: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator
) -> Instances:
    """``count`` detections of an image: half of them near objects, half anywhere."""
    near = rng.integers(OBJECTS, size=count // 2)
    corner = rng.uniform(0, SIDE - 200, (count - len(near), 2))
    anywhere = np.concatenate((corner, corner + rng.uniform(10, 200, corner.shape)), axis=1)
    noise = rng.normal(size=(len(near), 4)) * rng.choice([1, 5, 20], (len(near), 1))
    found = Instances((SIDE, SIDE))
    placed = np.concatenate((boxes[near] + noise, anywhere))
    found.pred_boxes = Boxes(torch.tensor(placed, dtype=torch.float32))
    found.scores = torch.tensor(rng.beta(0.5, 2, count), dtype=torch.float32)
    classes = np.concatenate((labels[near], rng.integers(len(CLASS_NAMES), size=len(corner))))
    found.pred_classes = torch.tensor(classes)
    return found


def make_split(folder: Path, args) -> list[tuple[dict, dict]]:
    """Write and register the split "synthetic"; each image's input and output of a model."""
    rng = np.random.default_rng(0)
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    images = []
    for number in range(args.images):
        objects = write_objects(folder / f"Annotations/{number:06d}.xml", rng)
        found = detect(*objects, args.detections, rng)
        images.append(({"image_id": f"{number:06d}"}, {"instances": found}))
    listed = "".join(f"{number:06d}\n" for number in range(args.images))
    (folder / "ImageSets/Main/test.txt").write_text(listed)
    MetadataCatalog.get("synthetic").set(
        thing_classes=list(CLASS_NAMES), dirname=str(folder), split="test", year=args.year
    )
    return images


def measure(kind: type, images: list[tuple[dict, dict]]) -> tuple[float, float, dict]:
    """Seconds to take the detections in, seconds to evaluate, and the metrics."""
    parse_rec.cache_clear()
    evaluator = kind("synthetic")
    evaluator.reset()
    began = time.perf_counter()
    for entry, output in images:
        evaluator.process([entry], [output])
    taken = time.perf_counter()
    metrics = evaluator.evaluate()["bbox"]
    return taken - began, time.perf_counter() - taken, metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--detections", type=int, default=30, help="in an image")
    parser.add_argument("--year", type=int, default=2007, choices=(2007, 2012))
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    seconds = {name: [] for name in EVALUATORS}
    with tempfile.TemporaryDirectory() as name:
        images = make_split(Path(name), args)
        for repeat in range(args.repeats):
            order = list(EVALUATORS)[:: -1 if repeat % 2 else 1]
            found = {}
            for each in order:
                *times, found[each] = measure(EVALUATORS[each], images)
                seconds[each].append((*times, sum(times)))
            theirs = found["Detectron2"]  # who says nothing of single classes
            if {metric: found["ours"][metric] for metric in theirs} != theirs:
                sys.exit(f"the metrics differ: {found}")
    table = Table(
        title=f"VOC {args.year} AP, {args.images} images, {args.detections} detections each; "
        f"median (range) of {args.repeats}"
    )
    for column in ("seconds to", *EVALUATORS, "faster"):
        table.add_column(column, justify="left" if column == "seconds to" else "right")
    for place, what in enumerate(("take the detections in", "evaluate", "both")):
        theirs, ours = ([row[place] for row in seconds[each]] for each in EVALUATORS)
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        table.add_row(what, spread(theirs, 2), spread(ours, 2), spread(ratios, 1) + " x")
    console = Console(width=110)
    console.print(table)
    console.print(f"the metrics are the same to the last bit: {found['ours']}")


def spread(values: list[float], decimals: int) -> str:
    low, middle, high = (f"{f(values):.{decimals}f}" for f in (min, statistics.median, max))
    return f"{middle} ({low}-{high})"


if __name__ == "__main__":
    main()
