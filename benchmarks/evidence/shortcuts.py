"""What a data set gives away without any network: the other half of ``make evidence``.

    python -m benchmarks.evidence.shortcuts DATA -o FILE.json \\
        --train ade20k_sem_seg_train --test ade20k_sem_seg_val

Measured on the label images that the probes use: how many objects an image holds; whether the class
of an object can be told from colour and texture, of the background around it or of itself; what the
linear probe would score on colour and texture of a position's cell alone; and whether test images
repeat training images. Intervals (95 %) resample blocks of test images in the order of their names:
frames of one video are alike.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densessl import probes
from densessl.core.errors import run_module
from densessl.core.files import write_json
from densessl.d2_transfer import datasets

VOID = 255
CELLS = 16  # pixels of a cell's side, as res4 has them
HUES, TURNS = 8, 4  # bins
DRAWS, SHUFFLES = 2000, 5
BLOCK = 10  # test images that are drawn together
THUMBNAIL = 16
MARGIN = 0.5  # of the box, on each side: the ring around an object
FEWEST = 20  # pixels of a region that is described
RING, OBJECT = "the background around it", "the object itself"


def main(argv: list[str]) -> int:
    """Measure and write; returns the exit code."""
    args = _parser().parse_args(argv)
    datasets.check((args.train, args.test), args.data, stand_in=True)
    train, test = (_images(args.data, name, args.width) for name in (args.train, args.test))
    found = {"train": len(train), "test": len(test), "cells": cells(train, test)}
    found["duplicates"] = duplicates(train, test)
    annotations = args.data / "coco" / "annotations"
    if annotations.is_dir():
        found["objects"] = objects(args.data / "coco")
    write_json(args.output, found)
    print(json.dumps(found, indent=2))
    return 0


Images = list[tuple[np.ndarray, np.ndarray]]  # RGB in 0 … 1 [H, W, 3], classes [H, W]


def _images(root: Path, name: str, width: int) -> Images:
    """A split's images and label images, the images ``width`` pixels wide (0: as they are)."""
    layout = datasets.LAYOUTS[name]
    found = []
    for pair in layout.pairs(root):
        image, labels = Image.open(pair.image).convert("RGB"), np.array(Image.open(pair.labels))
        if width:
            height = round(image.height * width / image.width)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        labels = np.where(labels >= layout.classes, VOID, labels)
        found.append((np.asarray(image, np.float32) / 255, labels))
    return found


def maps(image: np.ndarray) -> np.ndarray:
    """What each pixel adds to a description: ``[H, W, 20]``: colour, its square, bins of hue by
    saturation, bins of the gradient's direction by its size."""
    grey = image.mean(2)
    down, right = np.gradient(grey)
    size = np.hypot(down, right)
    turn = np.floor((np.arctan2(down, right) % np.pi) / np.pi * TURNS).astype(int) % TURNS
    high, low = image.max(2), image.min(2)
    chroma = high - low
    a, b = image[..., 0] - image[..., 1], image[..., 1] - image[..., 2]
    angle = np.arctan2(np.sqrt(3) * b, 2 * a + b) % (2 * np.pi)
    hue = np.floor(angle / (2 * np.pi) * HUES).astype(int) % HUES
    parts = [image, image**2, np.eye(HUES)[hue] * chroma[..., None]]
    parts += [np.eye(TURNS)[turn] * size[..., None], (size**2)[..., None], chroma[..., None] ** 2]
    return np.concatenate(parts, 2).astype(np.float32)


def describe(pixels: np.ndarray) -> np.ndarray:
    """Of the maps' pixels ``[N, C]``: means, and the deviations of the three colours."""
    mean = pixels.mean(0)
    return np.concatenate([mean, np.sqrt(np.maximum(mean[3:6] - mean[:3] ** 2, 0))])


def cells(train: Images, test: Images) -> dict:
    """mIoU of a linear layer on colour and texture of cells of CELLS pixels, with its interval.

    Beside it the same with the training cells' labels in another order.
    """
    classes = 1 + max(int(labels[labels < VOID].max(initial=0)) for _, labels in train)
    features, counts = zip(*(_cells(each, classes) for each in train), strict=True)
    features, counts = torch.cat(features), torch.cat(counts)
    generator = torch.Generator().manual_seed(0)
    shuffled = counts[torch.randperm(len(counts), generator=generator)]
    found = {}
    for name, labels in (("mIoU", counts), ("shuffled", shuffled)):
        layer = probes.linear_probe(features, labels, classes, batch_norm=True, iterations=200)
        matrices = torch.stack([_confusion(layer, each, classes) for each in test])
        low, high = _interval(matrices, _miou)
        found[name] = {"value": _miou(matrices.sum(0)), "low": low, "high": high}
    return found


def _cells(each: tuple[np.ndarray, np.ndarray], classes: int) -> tuple[Tensor, Tensor]:
    """Descriptions ``[h·w, C]`` of an image's cells and the counts ``[h·w, classes]`` of them."""
    image, labels = each
    grid = (image.shape[0] // CELLS, image.shape[1] // CELLS)
    values = maps(image[: grid[0] * CELLS, : grid[1] * CELLS])
    values = values.reshape(grid[0], CELLS, grid[1], CELLS, -1).transpose(0, 2, 1, 3, 4)
    rows = values.reshape(grid[0] * grid[1], CELLS**2, -1)
    features = torch.from_numpy(np.stack([describe(row) for row in rows]))
    counts = probes.cell_counts(torch.from_numpy(labels.astype(np.int64)), classes, grid)
    return features, counts.flatten(0, 1)


def _confusion(layer, each: tuple[np.ndarray, np.ndarray], classes: int) -> Tensor:
    features, _ = _cells(each, classes)
    image, labels = each
    grid = (image.shape[0] // CELLS, image.shape[1] // CELLS)
    logits = layer.logits(features).T.reshape(1, classes, *grid)
    logits = torch.nn.functional.interpolate(logits, labels.shape, mode="bilinear")
    found = probes.Confusion(classes)
    found.add(logits[0].argmax(0), torch.from_numpy(labels.astype(np.int64)))
    return found.counts


def _miou(counts: Tensor) -> float:
    found = probes.Confusion(len(counts))
    found.counts = counts
    return found.miou()


def _interval(parts: Tensor, value) -> tuple[float, float]:
    """Percentiles of ``value`` of the sum over test images, resampled in blocks of BLOCK."""
    blocks = torch.stack([block.sum(0) for block in parts.split(BLOCK)])
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(blocks), (DRAWS, len(blocks)))
    values = [value(blocks[draw].sum(0)) for draw in torch.from_numpy(draws)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def duplicates(train: Images, test: Images) -> dict:
    """How alike the nearest training image is: of each test image, and of each training image
    among the others; the correlation of grey thumbnails."""
    of_train, of_test = (torch.from_numpy(_thumbnails(images)) for images in (train, test))
    across = (of_test @ of_train.T).max(1).values
    own = of_train @ of_train.T
    own.fill_diagonal_(-1)
    within = own.max(1).values
    limit = float(np.percentile(within, 99))
    return {
        "median": float(across.median()),
        "most": float(across.max()),
        "median_in_training": float(within.median()),
        "most_in_training": float(within.max()),
        "share_above_99_per_cent_of_training": float((across > limit).float().mean()) * 100,
    }


def _thumbnails(images: Images) -> np.ndarray:
    found = []
    for image, _ in images:
        grey = Image.fromarray((image.mean(2) * 255).astype(np.uint8))
        small = np.asarray(grey.resize((THUMBNAIL,) * 2, Image.Resampling.BOX), np.float32).ravel()
        small = small - small.mean()
        found.append(small / max(float(np.linalg.norm(small)), 1e-6))
    return np.stack(found)


def objects(root: Path) -> dict:
    """How many objects an image holds, and from what their class can be told."""
    train, test = (list(_described(root, split)) for split in ("train2017", "val2017"))
    told = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    counted = Counter(each["image_id"] for each in told["annotations"])
    numbers = [counted[each["id"]] for each in told["images"]]
    found = {
        "an_image": float(np.mean(numbers)),
        "share_of_images_with_several": float(np.mean(np.array(numbers) > 1)) * 100,
        "classes": len({each["class"] for each in train}),
        "test_objects": len(test),
    }
    for name in (RING, OBJECT):
        found[name] = _told(name, train, test)
    return found


def _described(root: Path, split: str) -> Iterator[dict]:
    """Each object: its image, its class, and the descriptions of its regions."""
    from pycocotools.coco import COCO

    coco = COCO(str(root / "annotations" / f"instances_{split}.json"))
    names = {number: place for place, number in enumerate(sorted(coco.getCatIds()))}
    for number in sorted(coco.getImgIds()):
        (facts,) = coco.loadImgs(number)
        with Image.open(root / split / facts["file_name"]) as opened:
            values = maps(np.asarray(opened.convert("RGB"), np.float32) / 255)
        own = coco.loadAnns(coco.getAnnIds(imgIds=number))
        masks = [coco.annToMask(each).astype(bool) for each in own]
        covered = np.any(masks, axis=0) if masks else np.zeros(values.shape[:2], bool)
        for each, mask in zip(own, masks, strict=True):
            x, y, w, h = each["bbox"]
            ring = np.zeros_like(mask)
            ring[
                max(round(y - MARGIN * h), 0) : round(y + (1 + MARGIN) * h),
                max(round(x - MARGIN * w), 0) : round(x + (1 + MARGIN) * w),
            ] = True
            regions = {RING: ring & ~covered, OBJECT: mask}
            if min(region.sum() for region in regions.values()) >= FEWEST:
                described = {name: describe(values[region]) for name, region in regions.items()}
                yield {"image": number, "class": names[each["category_id"]], **described}


def _told(name: str, train: Sequence[dict], test: Sequence[dict]) -> dict:
    """Accuracy of a linear layer on the description, its interval, and that by chance."""
    features, labels = (_columns(train, name), torch.tensor([each["class"] for each in train]))
    of_test, truth = (_columns(test, name), torch.tensor([each["class"] for each in test]))
    classes = int(labels.max()) + 1

    def right(learnt_from: Tensor) -> Tensor:
        layer = probes.linear_probe(
            features, learnt_from, classes, l2=1e-3, batch_norm=True, iterations=200
        )
        return (layer.predict(of_test) == truth).long()

    hits = right(labels)
    images = torch.tensor([each["image"] for each in test])
    by_image = torch.stack(
        [
            torch.tensor([int(hits[images == one].sum()), int((images == one).sum())])
            for one in images.unique()
        ]
    )
    low, high = _interval(by_image, _share)
    generator = torch.Generator().manual_seed(0)
    chance = [
        float(right(labels[torch.randperm(len(labels), generator=generator)]).float().mean()) * 100
        for _ in range(SHUFFLES)
    ]
    most = float(truth.bincount().max()) / len(truth) * 100
    value = float(hits.float().mean()) * 100
    shuffled = float(np.mean(chance))
    return {"value": value, "low": low, "high": high, "shuffled": shuffled, "most_frequent": most}


def _share(counts: Tensor) -> float:
    return 100 * float(counts[0]) / max(float(counts[1]), 1)


def _columns(described: Sequence[dict], name: str) -> Tensor:
    return torch.from_numpy(np.stack([each[name] for each in described]).astype(np.float32))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("data", type=Path, help="the folder of the data sets")
    made.add_argument("--train", required=True, choices=tuple(datasets.LAYOUTS), metavar="NAME")
    made.add_argument("--test", required=True, choices=tuple(datasets.LAYOUTS), metavar="NAME")
    made.add_argument("--width", type=int, default=0, help="of the images, in pixels; 0: as is")
    made.add_argument("-o", "--output", type=Path, required=True)
    return made


if __name__ == "__main__":
    run_module(main, "shortcuts")
