"""Processor time that each verb takes to start, or to do what needs no training.

    python -m benchmarks.startup                # every verb, in a few minutes on an idle core
    python -m benchmarks.startup --repeats 1 --only help

User and system time of a process and its children, the least of ``--repeats``: what else the
machine does makes it longer, never shorter. ``--bytecode no`` compiles every module each time, as
where PYTHONDONTWRITEBYTECODE is set and nothing was compiled before; by default compiled modules
are kept below ``build/``, and the first start, which writes them, is not counted.

Of ``status`` where SLURM's controller is away (``squeue`` fails, or never answers) it is the time
by the clock, for a hundred jobs that were submitted.
"""

import argparse
import os
import pickle
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from densessl.cli import VERBS
from densessl.core import checkpoint
from densessl.d2_transfer import results
from densessl.slurm import state
from densessl.slurm.graph import Job
from densessl.weight_files import keys, safetensors

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "build" / "bytecode"
HELP, LIST, CONFIG, AWAY = 0.2, 0.5, 1.5, 3.0  # seconds that are to be enough
WEIGHTS = (  # of a ResNet-50, about 100 MB in each of the forms that people have
    "weights.pth",
    "before_1_6.pth.tar",
    "weights.safetensors",
    "detectron2.pkl",
    "backbone_final.pth",
)
GOALS = {  # words of a command: its goal, None where there is none
    **{f"{verb} --help": HELP for verb in VERBS},
    "pretrain --list": LIST,
    "transfer --list": LIST,
    "reproduce --list": LIST,
    "table --paper setsim/table4": LIST,
    "table {folder}/trials": LIST,
    "status {folder}/jobs": LIST,
    **{f"inspect {{folder}}/{name}": LIST for name in WEIGHTS},
    "transfer --protocol coco_mask_c4_1x --print-config": CONFIG,
    "transfer --protocol linear --print-config": CONFIG,
    "reproduce setsim/table4 --dry-run -o {folder}/run": CONFIG,
    "reproduce setsim/table4 --dry-run --mini -o {folder}/run": CONFIG,
    "pretrain --config setsim_released --print-config DATA.PATH images": CONFIG,
    "doctor": None,
}
JOBS = 100
SQUEUES = {"fails": "echo 'Unable to contact controller' >&2; exit 1", "hangs": "exec sleep 600"}


def prepare(folder: Path) -> None:
    """Two trial records, graphs of jobs and checkpoints, for the verbs that read such."""
    for seed in (1, 2):
        record = results.Record(
            method="setsim",
            weights={"path": "setsim.pkl", "sha256": "0" * 64},
            pretrain={"epochs": 200},
            protocol="voc_det_c4",
            variant="",
            seed=seed,
            metrics={"bbox/AP": 55.0 + seed, "bbox/AP50": 81.0, "bbox/AP75": 61.0},
            config_sha256="0" * 64,
            versions={},
            started=results.now(),
            finished=results.now(),
        )
        trial = folder / "trials" / f"trial_{seed}"
        trial.mkdir(parents=True)
        results.save(trial, record)
    (folder / "jobs").mkdir()
    state.write_graph(folder / "jobs", [Job("pretrain", ("pretrain", "--list"))], {})
    prepare_weights(folder)
    prepare_away(folder)


def prepare_weights(folder: Path) -> None:
    """The files of ``WEIGHTS``; that of a pretraining has its checksum beside it."""
    import torch
    from torchvision.models import resnet50

    state = resnet50().state_dict()
    backbone = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    training = {"state_dict": state, "epoch": 100, "arch": "resnet50"}
    torch.save(training, folder / "weights.pth")
    old = folder / "before_1_6.pth.tar"
    torch.save(training, old, _use_new_zipfile_serialization=False)
    with open(folder / "weights.safetensors", "wb") as stream:
        safetensors.write(stream, state, {})
    arrays = {keys.to_detectron2(name): tensor.numpy() for name, tensor in backbone.items()}
    (folder / "detectron2.pkl").write_bytes(pickle.dumps({"model": arrays}))
    images = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "RGB"}
    ours = {"backbone": backbone, "method": "moco", "normalization": images, "iteration": 100}
    checkpoint.save(folder / "backbone_final.pth", ours, checked=True)


def prepare_away(folder: Path) -> None:
    """Jobs that were submitted and run, as far as their files say, and a squeue of each kind."""
    cluster = folder / "cluster"
    jobs = [Job(f"job-{n}", ("pretrain", "--list")) for n in range(JOBS)]
    (cluster / "logs").mkdir(parents=True)
    state.write_graph(cluster, jobs, {})
    for number, job in enumerate(jobs):
        state.write_submission(cluster, job.name, state.Submission(str(number), state.now()))
        state.write_state(cluster, job.name, state.State("running", str(number), "n1", state.now()))
        log = "10:00:00 INFO pretrain 20/400, 2 h 10 min left  loss 7.1\n" * 100
        (cluster / "logs" / f"{job.name}.txt").write_text(log)
    for how, script in SQUEUES.items():
        squeue = folder / how / "squeue"
        squeue.parent.mkdir()
        squeue.write_text(f"#!/bin/sh\n{script}\n")
        squeue.chmod(0o755)


def run(words: list[str], environment: dict[str, str]) -> None:
    """A command in a process of its own; SystemExit where it fails."""
    command = [sys.executable, "-m", "densessl", *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)} ended with {done.returncode}: {done.stderr}")


def seconds(words: list[str], environment: dict[str, str]) -> float:
    """User and system time of the process of a command, and of those that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(words, environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_the_clock(words: list[str], environment: dict[str, str]) -> float:
    """The seconds that one waits for the end of a command."""
    began = time.perf_counter()
    run(words, environment)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", metavar="TEXT", help="commands that hold it")
    parser.add_argument("--bytecode", choices=("yes", "no"), default="yes")
    args = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if args.bytecode == "yes":
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = str(CACHE)
    else:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    table = Table("command", "goal, s", "seconds", "")

    def add(text: str, goal: float | None, times: Iterable[float]) -> None:
        least = min(times)
        missed = "missed" if goal is not None and least > goal else ""
        table.add_row(text, f"{goal or '–'}", f"{least:.2f}", missed)

    with TemporaryDirectory() as folder:
        prepare(Path(folder))
        for text, goal in GOALS.items():
            if args.only in text:
                words = text.format(folder=folder).split()
                if args.bytecode == "yes":
                    seconds(words, environment)
                add(text, goal, (seconds(words, environment) for _ in range(args.repeats)))
        for how in SQUEUES:
            text = f"status where squeue {how} (by the clock)"
            if args.only in text:
                there = environment | {"PATH": f"{folder}/{how}:{os.environ['PATH']}"}
                words = ["status", f"{folder}/cluster"]
                add(text, AWAY, (by_the_clock(words, there) for _ in range(args.repeats)))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
