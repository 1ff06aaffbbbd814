"""``python -m benchmarks.soak``: memory, file handles and threads over 10,000 steps of pretraining.

The whole engine runs, with loader processes, checkpoints and logs, on a network of two convolutions
and drawn images. Every so many steps it is asked to stop, saves, and resumes in the same process
with new loaders. In the middle of each session the process is measured. The first sessions warm up.
Exit code 1 where memory grew by 1 % or more, or handles or threads by one.
"""

import argparse
import gc
import logging
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from densessl.core.errors import StoppedEarly
from densessl.pretrain import config
from densessl.pretrain.engine.train import train

IMAGES, SIDE, BATCH = 64, 40, 8
WARM = 10  # of a hundred sessions warm up: pools of memory and caches fill
MOST = 1.0  # per cent that memory may grow
BACKBONE = Path(__file__).parents[1] / "small_backbone.py"


@dataclass(frozen=True)
class Held:
    """What the process holds: memory in bytes, open files, threads of Python and of the system."""

    memory: int
    handles: int
    threads: int
    system_threads: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        handles, threads = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        return cls(memory, handles, threading.active_count(), threads)


def options(folder: Path, steps: int, workers: int) -> config.CfgNode:
    """Of a run on images that are drawn here."""
    images = folder / "images"
    images.mkdir()
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number:02d}.jpg")
    words = {
        "OUTPUT_DIR": folder / "run",
        "DATA.PATH": images,
        "DATA.WORKERS": workers,
        "BACKBONE.NAME": f"{BACKBONE}:Small",
        "BACKBONE.GROUP_SIZE": BATCH,
        "VIEWS.SIZE": 32,
        "MOCO.QUEUE": IMAGES,
        "MOCO.DIM": 16,
        "MOCO.HIDDEN": 16,
        "SOLVER.BATCH_SIZE": BATCH,
        "SOLVER.EPOCHS": steps * BATCH // IMAGES + 1,
        "SOLVER.MAX_STEPS": steps,
        "CHECKPOINT.STEPS": 100,
        "DEVICE": "cpu",
    }
    return config.load(overrides=[str(part) for pair in words.items() for part in pair])


def soak(folder: Path, steps: int, sessions: int, workers: int) -> list[Held]:
    """Run ``steps`` in so many sessions; what was held in the middle of each."""
    found: list[Held] = []
    cfg, each = options(folder, steps, workers), steps // sessions

    def after(step: int) -> None:
        if step % each == each // 2:
            found.append(Held.now())
        if step % each == 0 and step < steps:
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(sessions - 1):
        try:
            train(cfg, after)
        except StoppedEarly:
            continue
        raise SystemExit("a session was not stopped")
    train(cfg, after)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), args.steps, args.sessions, args.workers)
    seconds = time.perf_counter() - began
    warm = max(args.sessions * WARM // 100, 1)
    few = max((len(found) - warm) // 5, 1)
    first, last = found[warm : warm + few], found[-few:]
    grown = False
    print(f"{args.steps} steps in {args.sessions} sessions, {seconds:.0f} s")
    for name in Held.__dataclass_fields__:
        before, after = (
            statistics.median(getattr(h, name) for h in part) for part in (first, last)
        )
        growth = 100 * (after - before) / before
        grown |= growth >= MOST if name == "memory" else after > before
        print(
            f"{name}: {before:.0f} after {warm} sessions, {after:.0f} at the end ({growth:+.2f} %)"
        )
    return int(grown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
