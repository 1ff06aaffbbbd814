"""Speed of MoCo-v2's two and DINO's ten views an image, from JPEG files to normalised tensors.

    python -m benchmarks.views [--images 64] [--size 224] [--repeats 5] [--threads 1]

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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from torchvision import transforms as v1
from torchvision.transforms import v2

from benchmarks.goals import goal, ratios
from densessl.core import limits
from densessl.pretrain import config
from densessl.pretrain.views import (
    NORMALIZATION,
    RECIPES,
    ViewDataset,
    apply_photometric,
    build_source,
    collate,
)
from densessl.pretrain.views.recipes import Recipe, build_recipes

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


def dino_pipelines() -> list[v1.Compose]:
    """The official code's ten, in their order (Caron et al. 2021)."""

    def view(size: int, scale: tuple[float, float], blur: float, solarize: float) -> v1.Compose:
        bicubic = v1.InterpolationMode.BICUBIC
        return v1.Compose(
            [
                v1.RandomResizedCrop(size, scale=scale, interpolation=bicubic),
                v1.RandomHorizontalFlip(),
                v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                v1.RandomGrayscale(p=0.2),
                v1.RandomApply([PillowBlur()], p=blur),
                v1.RandomSolarize(128, p=solarize),
                v1.ToTensor(),
                v1.Normalize(NORMALIZATION["mean"], NORMALIZATION["std"]),
            ]
        )

    local = view(96, (0.05, 0.4), blur=0.5, solarize=0.0)
    first, second = ((224, (0.4, 1.0), *p) for p in ((1.0, 0.0), (0.1, 0.2)))
    return [view(*first), view(*second), *[local] * 8]


class Comparison:
    """Variants of making the views of all images in ``folder``, timed in turns."""

    def __init__(self, folder: Path, images: int, repeats: int):
        self.source = build_source(CfgNode({"DATA": {"SOURCE": "folder", "PATH": str(folder)}}))
        self.paths = [self.source.path(index) for index in range(images)]
        self.images, self.repeats = images, repeats
        self.seconds: dict[str, list[float]] = {}

    def ours(self, recipe: Recipe, size: int, local: Recipe, whole: bool) -> Callable[[int], None]:
        """Our views; not ``whole``: without the photometric part."""
        dataset = ViewDataset(self.source, recipe, size, seed=0, local=local)

        def run(epoch: int) -> None:
            for start in range(0, self.images, BATCH):
                stop = min(start + BATCH, self.images)
                batch = collate([dataset[epoch, index] for index in range(start, stop)])
                if whole:
                    apply_photometric(batch, "cpu")

        return run

    def pillow(self, *pipelines: v1.Compose) -> Callable[[int], None]:
        """The views that each pipeline makes of an image by Pillow; without any: decoding alone."""

        def run(epoch: int) -> None:
            for path in self.paths:
                with Image.open(path) as image:
                    image = image.convert("RGB")
                for pipeline in pipelines:
                    pipeline(image)

        return run

    def albumentations(self, size: int, area: str | None) -> Callable[[int], None]:
        views = albumentations_pipeline(size, area)

        def run(epoch: int) -> None:
            for path in self.paths:
                views(path)

        return run

    def time(self, variants: dict[str, Callable[[int], None]]) -> None:
        self.seconds = {variant: [] for variant in variants}
        for repeat in range(self.repeats + 1):
            for variant, run in variants.items():
                began = time.process_time()
                run(repeat)
                if repeat:  # the first is the warm-up
                    self.seconds[variant].append(time.process_time() - began)

    def table(self, title: str, reference: str) -> Table:
        table = Table(title=f"{title}, load {os.getloadavg()[0]:.1f}")
        for column in ("variant", "images/s", "range", f"against {reference}"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        for variant, times in self.seconds.items():
            rates = [self.images / t for t in times]
            table.add_row(
                variant,
                f"{statistics.median(rates):.1f}",
                f"{min(rates):.1f}-{max(rates):.1f}",
                f"{statistics.median(ratios(self.seconds[reference], times)):.2f}x",
            )
        return table


PILLOW, DECODED = "torchvision, Pillow images", "decoding alone, Pillow"
OURS, LOADER = "ours", "ours, the loader's part alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    limits.keep_freed_memory()  # as pretraining on a CPU does
    console = Console(width=100)
    jpegs = f"{options.images} JPEGs of 500 x 375, {options.threads} thread(s), median of "
    jpegs += f"{options.repeats}"
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name), options.images)
        compared = Comparison(Path(name), options.images, options.repeats)
        recipe, size = RECIPES["moco_v2"], options.size
        variants = {
            DECODED: compared.pillow(),
            PILLOW: compared.pillow(*[pillow_pipeline(size)] * 2),
            "torchvision v2, uint8 tensors": compared.pillow(*[tensor_pipeline(size)] * 2),
            OURS: compared.ours(recipe, size, (), whole=True),
            LOADER: compared.ours(recipe, size, (), whole=False),
        }
        others = []
        if importlib.util.find_spec("albumentations"):
            for kind, area in (("linear", None), ("area", "image")):
                others.append(f"albumentations, OpenCV, {kind}")
                variants[others[-1]] = compared.albumentations(size, area)
        compared.time(variants)
        console.print(compared.table(f"two MoCo-v2 views of {size} px, {jpegs}", PILLOW))
        seconds = compared.seconds
        against = ratios(seconds[PILLOW], seconds[OURS])
        console.print(goal("ours", against, 2.5, "x torchvision with Pillow"))
        for other in others:
            console.print(goal("ours", ratios(seconds[other], seconds[OURS]), 1, f"x {other}"))
        crops = ratios(seconds[LOADER], seconds[DECODED])
        console.print(goal("decoding and two crops", crops, 1.3, "x decoding alone", most=True))
        cores = [3500 / (options.images / t) for t in seconds[LOADER]]
        console.print(f"3,500 images/s: {statistics.median(cores):.0f} cores for the loader's part")

        recipe, local = build_recipes(config.load("dino").VIEWS)
        variants = {
            PILLOW: compared.pillow(*dino_pipelines()),
            OURS: compared.ours(recipe, 224, local, whole=True),
            LOADER: compared.ours(recipe, 224, local, whole=False),
        }
        compared.time(variants)
        console.print(compared.table(f"DINO's ten views, {jpegs}", PILLOW))
        against = ratios(compared.seconds[PILLOW], compared.seconds[OURS])
        console.print(goal("ours", against, 2, "x torchvision with Pillow"))


if __name__ == "__main__":
    main()
