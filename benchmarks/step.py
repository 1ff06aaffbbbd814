"""What a method's dense branch adds to the step of its framework, in turns in one process.

    python -m benchmarks.step                           # on the CPU: ResNet-50, 224 px, 8 images
    python -m benchmarks.step --methods setsim densecl --steps 9
    python -m benchmarks.step --device cuda --images 256 --amp bf16

A step is the whole of it but for loading: momentum encoder, forward, backward, optimizer, queues
(65,536 keys). Each dense method is compared with its framework alone, with as many forward passes:
SetSim's two directions with MoCo's two. Matching is the part of the step that finds the
correspondence. Ratios are taken between neighbours in time; the table has their median and range.
"""

import argparse
import contextlib
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from densessl.pretrain import config
from densessl.pretrain.engine.optimizers import build_optimizer
from densessl.pretrain.engine.schedules import scaled_lr
from densessl.pretrain.methods import build_method
from densessl.pretrain.views import View

FRAMEWORKS = {  # preset: the framework alone, with the same number of forward passes
    "densecl": ("moco_v2", []),
    "houghcl": ("moco_v2", []),
    "setsim_released": ("moco_v2", []),
    "setsim_paper": ("moco_v2", ["MOCO.SYMMETRIC", "True"]),
    "setsim_simsiam": ("simsiam", []),
    "pixpro": ("byol", []),
    "resim_c4": ("moco_v2", []),
    "resim_fpn": ("moco_v2", []),
    "vader": ("moco_v2", []),
}


class Steps:
    """A method with an optimizer, and the seconds of its steps."""

    def __init__(self, preset: str, overrides: list[str], args):
        options = ["BACKBONE.NAME", args.backbone, "VIEWS.SIZE", str(args.size)]
        options += ["SOLVER.BATCH_SIZE", str(args.images), "AMP", args.amp]
        options += ["BACKBONE.GROUP_SIZE", str(min(32, max(2, args.images // 2)))]
        self.cfg = config.load(preset, [*overrides, *options])
        self.device = torch.device(args.device)
        torch.manual_seed(0)
        layout = torch.channels_last if self.device.type == "cuda" else torch.preserve_format
        self.method = build_method(self.cfg).to(self.device, memory_format=layout).train()
        groups = self.method.parameter_groups(self.cfg)
        self.optimizer = build_optimizer(self.cfg.SOLVER, groups, scaled_lr(self.cfg.SOLVER))
        self.matching = []
        if hasattr(self.method, "correspond"):
            self.method.correspond = self.timed(self.method.correspond)
        self.number = 0

    def timed(self, function):
        """``function``, with its seconds added to those of matching."""

        def run(*inputs):
            began = self.now()
            result = function(*inputs)
            self.matching.append(self.now() - began)
            return result

        return run

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def run(self, views: list[View]) -> tuple[float, float]:
        """One step; its seconds, and those of its matching."""
        self.matching.clear()
        began = self.now()
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.cfg.AMP)
        autocast = torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()
        self.method.before_step(self.number)
        with autocast:
            loss = self.method(views, self.number)["loss"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.method.after_backward(self.number)
        self.optimizer.step()
        self.method.after_step(self.number)
        self.number += 1
        return self.now() - began, sum(self.matching)


def random_views(args) -> list[View]:
    """Two views of noise, from overlapping crops of images of 500 × 375 px."""
    generator = torch.Generator().manual_seed(1)
    views = []
    for _ in range(2):
        corner = torch.rand(args.images, 2, generator=generator) * torch.tensor([150.0, 100.0])
        image = torch.randn(args.images, 3, args.size, args.size, generator=generator)
        flip = torch.zeros(args.images, dtype=torch.bool)
        size = torch.tensor([500.0, 375.0]).repeat(args.images, 1)
        view = View(image, torch.cat((corner, corner + 220), 1), flip, size)
        views.append(view.to(args.device))
    return views


def spread(values: list[float]) -> str:
    middle = statistics.median(values)
    return f"{middle:.1%} ({min(values):.1%} to {max(values):.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(FRAMEWORKS), choices=FRAMEWORKS)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", default="off", choices=("off", "fp16", "bf16"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    views = random_views(args)
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} CPU threads"
    table = Table(
        title=f"{args.backbone}, {args.size} px, {args.images} images, {where}, AMP {args.amp}, "
        f"torch {torch.__version__}; median of {args.steps} pairs of steps"
    )
    for column in ("method", "framework", "its step s", "images/s", "dense adds", "matching"):
        table.add_column(column, justify="left" if column in ("method", "framework") else "right")
    for preset in args.methods:
        framework, overrides = FRAMEWORKS[preset]
        alone, dense = Steps(framework, overrides, args), Steps(preset, [], args)
        alone.run(views), dense.run(views)  # warm-up
        pairs = [(alone.run(views)[0], *dense.run(views)) for _ in range(args.steps)]
        table.add_row(
            preset,
            " ".join([framework, *overrides]),
            f"{statistics.median(a for a, _, _ in pairs):.2f}",
            f"{statistics.median(args.images / d for _, d, _ in pairs):.1f}",
            spread([d / a - 1 for a, d, _ in pairs]),
            spread([m / d for _, d, m in pairs]),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
