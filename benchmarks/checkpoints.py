"""How long a checkpoint holds a run up: the copy that is written beside the steps, and the writing.

    python -m benchmarks.checkpoints [--config moco_v2] [--repeats 5] [--folder DIR]

The state of a real run on the CPU (model, optimizer after a step), in turns: the snapshot alone,
which the next step waits for, and the whole write with its fsync, which it waited for before.
Seconds by the clock, as a disk takes no processor time: median (range). Run it on the disk that is
meant.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.goals import goal
from densessl.core.checkpoint import Writing, snapshot
from densessl.pretrain import config
from densessl.pretrain.engine.build import build_model
from densessl.pretrain.engine.checkpoint import Checkpoints


def state_of(preset: str) -> dict:
    """What the checkpoint of a run holds beside its counters."""
    method, optimizer = build_model(config.load(preset), torch.device("cpu"))
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return {
        "model": method.state_dict(),
        "backbone": method.backbone_state(),
        "optimizer": optimizer.state_dict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="moco_v2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="on the disk that is meant (default: a temporary one)")
    options = parser.parse_args()
    state = state_of(options.config)
    took: dict[str, list[float]] = {"held up": [], "on the disk": [], "written at once": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpoints = Checkpoints(Path(folder), keep=1)
        for number in range(0, 2 * options.repeats, 2):
            with Writing() as writing:
                began = time.perf_counter()
                taken = snapshot(state)
                writing.begin(partial(checkpoints.save, number, taken))
                took["held up"].append(time.perf_counter() - began)
                writing.wait()
                took["on the disk"].append(time.perf_counter() - began)
            began = time.perf_counter()
            checkpoints.save(number + 1, state)
            took["written at once"].append(time.perf_counter() - began)
        size = checkpoints.found()[-1][1].stat().st_size
    print(f"{options.config}: {size / 2**20:.0f} MiB, n = {options.repeats}")
    print("| | s |\n|---|--:|")
    for name, seconds in took.items():
        low, high = min(seconds), max(seconds)
        print(f"| {name} | {statistics.median(seconds):.3f} ({low:.3f}-{high:.3f}) |")
    print("\n" + goal("held up", took["held up"], 0.3, "s", most=True))


if __name__ == "__main__":
    main()
