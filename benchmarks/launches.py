"""How many kernels the photometric part of a step asks a GPU for, counted on the meta device.

    python -m benchmarks.launches [--images 64] [--repeats 20]

Each repeat draws other views of a recipe, which do not always have its rarer operations. Nothing is
computed; a launch takes the host some 5 µs on a machine with a GPU.
"""

import argparse

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.goals import goal
from densessl.pretrain.views import RECIPES, Batch, apply_photometric
from densessl.pretrain.views.colour import draw
from densessl.pretrain.views.recipes import Recipe

SIDE = 16  # pixels of a view; the number of kernels does not depend on it
GOALS = {"moco_v2": 150.0}  # of its two views


class Launches(TorchDispatchMode):
    """Counts what a device away from the CPU is asked for: kernels, and copies from the CPU."""

    count = copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        away = isinstance(made, torch.Tensor) and made.device.type != "cpu"
        self.count += away and not function.is_view
        given = [each.device.type for each in tree_leaves(args) if isinstance(each, torch.Tensor)]
        self.copies += away and "cpu" in given
        return made


def batch_of(recipe: Recipe, images: int, rng: np.random.Generator) -> Batch:
    """As a loader gives it; few pixels, all 0."""
    drawn = [torch.stack([draw(rng, view) for _ in range(images)]) for view in recipe]
    pixels = torch.zeros(images, len(recipe), 3, SIDE, SIDE, dtype=torch.uint8)
    return Batch(
        index=torch.arange(images),
        unreadable=torch.zeros(0, dtype=torch.long),
        image=pixels[:, :2],
        local=pixels[:, 2:],
        box=torch.zeros(images, len(recipe), 4),
        flip=torch.zeros(images, len(recipe), dtype=torch.bool),
        size=torch.zeros(images, 2),
        colour=torch.stack(drawn, 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for name, local in (("moco_v2", 0), ("simclr", 0), ("byol", 0), ("dino", 8)):
        recipe = (*RECIPES[name][:2], *(RECIPES[name][-1],) * local)
        counts = []
        for _ in range(options.repeats):
            with Launches() as launches:
                apply_photometric(batch_of(recipe, options.images, rng), "meta")
            counts.append(launches.count)
        print(
            f"{name}, {len(recipe)} views: {min(counts)} to {max(counts)} kernels, "
            f"{launches.copies} copies"
        )
        if name in GOALS:
            print(goal("two views", counts, GOALS[name], "kernels", most=True))


if __name__ == "__main__":
    main()
