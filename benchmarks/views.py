"""Speed of two MoCo-v2 views an image, from JPEG files to normalised tensors, side by side.

    python benchmarks/views.py [--images 64] [--size 224] [--repeats 5] [--threads 1]

Ours (crop per image, photometric part batched) against the same recipe as torchvision transforms
on Pillow images (what the official code runs) and on uint8 tensors (transforms.v2), and, where it
is installed (make benchmarks), against albumentations with OpenCV: *linear* takes four pixels
around a point, however much it shrinks, *area* averages all of them, as the others do. One process,
the variants in turn; processor time; the table gives medians over the repeats and ratios from this
run.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from torchvision import transforms as v1
from torchvision.transforms import v2

from densessl.pretrain.views import (
    NORMALIZATION,
    RECIPES,
    ViewDataset,
    apply_photometric,
    build_source,
    collate,
)

BATCH = 32


def write_images(folder: Path, count: int) -> None:
    """JPEGs of 500 × 375 pixels with smooth structure and some grain, like photographs."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        grain = rng.normal(0, 8, image.shape)
        pixels = (image + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=90)


class PillowBlur:
    """The official code's blur: Pillow's, with a random radius."""

    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(1).uniform_(0.1, 2.0))))


def pillow_pipeline(size: int):
    return v1.Compose(
        [
            v1.RandomResizedCrop(size, scale=(0.2, 1.0)),
            v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v1.RandomGrayscale(p=0.2),
            v1.RandomApply([PillowBlur()], p=0.5),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            v1.Normalize(NORMALIZATION["mean"], NORMALIZATION["std"]),
        ]
    )


def tensor_pipeline(size: int):
    return v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=0.5),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(NORMALIZATION["mean"], NORMALIZATION["std"]),
        ]
    )


def albumentations_pipeline(size: int, area: str | None):
    """From a file to a tensor; ``area``: which images are averaged over areas where they shrink."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # importing it would ask the network
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    transform = A.Compose(
        [
            A.RandomResizedCrop((size, size), scale=(0.2, 1.0), area_for_downscale=area),
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_limit=(23, 23), sigma_limit=(0.1, 2.0), p=0.5),
            A.HorizontalFlip(p=0.5),
            A.Normalize(NORMALIZATION["mean"], NORMALIZATION["std"]),
        ]
    )

    def views(path):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        pixels = (transform(image=image)["image"].transpose(2, 0, 1) for _ in range(2))
        return [torch.from_numpy(np.ascontiguousarray(x)) for x in pixels]

    return views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, options.images)
        source = build_source(CfgNode({"DATA": {"SOURCE": "folder", "PATH": name}}))
        dataset = ViewDataset(source, RECIPES["moco_v2"], options.size, seed=0)

        def ours_workers(epoch):
            for start in range(0, options.images, BATCH):
                stop = min(start + BATCH, options.images)
                yield collate([dataset[(epoch, index)] for index in range(start, stop)])

        def ours(epoch):
            for batch in ours_workers(epoch):
                apply_photometric(batch, "cpu")

        def torchvision(pipeline):
            def run(epoch):
                for index in range(options.images):
                    with Image.open(source.path(index)) as image:
                        image = image.convert("RGB")
                    pipeline(image), pipeline(image)

            return run

        def albumentations(views):
            return lambda epoch: [views(source.path(index)) for index in range(options.images)]

        variants = {
            "torchvision, Pillow images": torchvision(pillow_pipeline(options.size)),
            "torchvision v2, uint8 tensors": torchvision(tensor_pipeline(options.size)),
            "ours": ours,
            "ours, the loader's part alone": lambda epoch: list(ours_workers(epoch)),
        }
        if importlib.util.find_spec("albumentations"):
            for name, area in (("linear", None), ("area", "image")):
                pipeline = albumentations_pipeline(options.size, area)
                variants[f"albumentations, OpenCV, {name}"] = albumentations(pipeline)
        seconds = {variant: [] for variant in variants}
        for repeat in range(options.repeats + 1):
            for variant, run in variants.items():
                began = time.process_time()
                run(repeat)
                if repeat:  # the first is the warm-up
                    seconds[variant].append(time.process_time() - began)

    table = Table(
        title=f"two MoCo-v2 views of {options.size} px, {options.images} JPEGs of 500 x 375, "
        f"{options.threads} thread(s), median of {options.repeats}, load {os.getloadavg()[0]:.1f}"
    )
    for column in ("variant", "images/s", "range", "against Pillow"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    reference = seconds["torchvision, Pillow images"]
    for variant, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(reference, times, strict=True))
        rates = [options.images / t for t in times]
        table.add_row(
            variant,
            f"{statistics.median(rates):.1f}",
            f"{min(rates):.1f}-{max(rates):.1f}",
            f"{ratio:.2f}x",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
