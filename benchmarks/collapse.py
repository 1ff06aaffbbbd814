"""How the spread of embeddings falls in the first steps, at the linear rule's rate and above it.

    python -m benchmarks.collapse                                        # half an hour, one thread
    python -m benchmarks.collapse --methods moco --sizes 64 --seeds 1 --steps 10

The twins for the scenes (ResNet-18, 16 images a step of 256 scenes of 96 px, a constant rate), at
the linear rule's rate and at 16 times it. Prints a row a run: the least spread of the first 20
steps over that of step 1, the steps at which it was first below a third and a tenth, contrast
accuracy over all steps, and similarity of negatives and uniformity of the last.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import torch

from densessl.pretrain.scenes import main as scenes

from .health_bands import IMAGES, SIDE, TWINS, lines

KEY = "stat/feature_std"


def row(log: list[dict]) -> str:
    """What a run of a line a step shows."""
    shares = [line[KEY] / log[0][KEY] for line in log]
    below = [
        next((str(step) for step, share in enumerate(shares, 1) if share < limit), "-")
        for limit in (1 / 3, 0.1)
    ]
    accuracy = sum(line["stat/accuracy"] for line in log) / len(log)
    last = [log[-1][f"stat/{name}"] for name in ("negative_similarity", "uniformity")]
    return (
        f"least {min(shares[:20]):5.3f}   a third {below[0]:>2}   a tenth {below[1]:>2}   accuracy "
        f"{accuracy:5.3f} (chance {log[-1]['stat/chance']:5.3f})   negatives {last[0]:5.3f}   "
        f"uniformity {last[1]:6.3f}"
    )


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(TWINS), default=["moco", "setsim"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 96], help="of views, pixels")
    parser.add_argument("--momenta", nargs="+", choices=["long", "twin"], default=["long", "twin"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--train", str(IMAGES), "--val", "2", "--size", str(SIDE), "--seed", "1"]
        scenes.main([f"{folder}/scenes", *options, "--workers", "1"])
        images = Path(folder) / "scenes" / "imagenet" / "train"
        runs = itertools.product(
            args.methods, args.sizes, args.momenta, range(args.seeds), (False, True)
        )
        for method, size, momenta, seed, collapse in runs:
            more = ["VIEWS.SIZE", str(size), "SOLVER.SCHEDULE", "constant"]
            log = lines(method, seed, args.steps, images, collapse, momenta == "long", more)
            rate = "16 x the rule" if collapse else "the rule"
            print(
                f"{method:8} {size:3} px {momenta:4} seed {seed} {rate:13} {row(log)}", flush=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
