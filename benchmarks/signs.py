"""What the signs of life add to a step, with and without them in turn in one process.

    python -m benchmarks.signs
    python -m benchmarks.signs --methods densecl --size 224 --images 32 --steps 5

A step is the whole of it but for loading, on one thread; what counts is processor time. Ratios are
taken between two neighbours in time, of which each comes first every other time; printed are their
median and quartiles.
"""

import argparse
import statistics
import sys
import time
from contextlib import contextmanager

import torch

from densessl.pretrain import config
from densessl.pretrain.engine.optimizers import build_optimizer
from densessl.pretrain.engine.schedules import scaled_lr
from densessl.pretrain.engine.step import Stepper
from densessl.pretrain.methods import build_method
from densessl.pretrain.methods import signs as module
from densessl.pretrain.views import View

FUNCTIONS = ("image_signs", "position_signs", "pair_signs")
ORIGINALS = {name: getattr(module, name) for name in FUNCTIONS}


@contextmanager
def left_out():
    """Methods that measure no signs."""
    users = [
        (each, name)
        for key, each in sys.modules.items()
        for name in FUNCTIONS
        if key.startswith("densessl.pretrain.methods.") and hasattr(each, name)
    ]
    for each, name in users:
        setattr(each, name, lambda *_: {})
    try:
        yield
    finally:
        for each, name in users:
            setattr(each, name, ORIGINALS[name])


def stepper(preset: str, args) -> tuple[Stepper, list[View]]:
    options = ["BACKBONE.NAME", args.backbone, "VIEWS.SIZE", str(args.size)]
    options += ["SOLVER.BATCH_SIZE", str(args.images), "MOCO.QUEUE", "4096"]
    cfg = config.load(preset, [*options, "BACKBONE.GROUP_SIZE", str(args.images // 2)])
    torch.manual_seed(0)
    method = build_method(cfg).train()
    optimizer = build_optimizer(cfg.SOLVER, method.parameter_groups(cfg), scaled_lr(cfg.SOLVER))
    side = float(args.size)
    view = [
        View(
            torch.randn(args.images, 3, args.size, args.size),
            torch.tensor([[4.0 * n, 0.0, side + 4.0 * n, side]]).expand(args.images, 4),
            torch.zeros(args.images, dtype=torch.bool),
            torch.full((args.images, 2), side + 8),
        )
        for n in range(2)
    ]
    return Stepper(method, method, optimizer, torch.device("cpu")), view


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["moco_v2", "setsim_paper"])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for preset in args.methods:
        run, views = stepper(preset, args)
        seconds, ratios = [], []
        for number in range(2 * args.steps + 2):
            began = time.process_time()
            if number % 4 in (1, 2):
                with left_out():
                    run.run([views], number, 0.001)
            else:
                run.run([views], number, 0.001)
            seconds.append(time.process_time() - began)
        for pair in range(1, args.steps + 1):  # the first pair warms up
            one, other = seconds[2 * pair : 2 * pair + 2]
            ratios.append(one / other if pair % 2 == 0 else other / one)
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{preset:15} {1000 * statistics.median(seconds):7.1f} ms a step; with the signs "
            f"{middle:.3f} ({low:.3f}-{high:.3f}) times as long",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
