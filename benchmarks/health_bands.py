"""What the signs of healthy pretrainings are: the bands that the report calls "as usual".

    python -m benchmarks.health_bands                            # every method: half an hour
    python -m benchmarks.health_bands --methods moco --steps 10 --seeds 1    # to see that it runs
    python -m benchmarks.health_bands --collapse                 # beside them, runs that die
    python -m benchmarks.health_bands --write d2_transfer/report/bands.json
    python -m benchmarks.health_bands --runs demo/pretrain/* --write d2_transfer/report/bands.json

The file keeps the bands of other methods; each has its command beside it.

Trains each method's twin for the scenes (ResNet-18, views of 64 px, 16 images a step, the rate of
the linear rule) and prints, of the mean over every five steps, the least and the largest over all
steps and seeds. ``--collapse`` takes 16 times the rate instead. ``--runs`` widens the bands by runs
that are there and known to be well, as those of the demo, whose weights beat both random starts.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from densessl.pretrain import config
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import METHODS
from densessl.pretrain.scenes import main as scenes

WITHOUT = "distill"  # follows a target that stays as it is, so cannot collapse
TWINS = {name: (name, []) for name in METHODS if name != WITHOUT} | {
    # method: the config whose twin is run, and what makes it this method
    "moco": ("moco_v2", []),
    "setsim": ("setsim_paper", []),
    "pixpro": ("pixpro", ["PIXPRO.INSTANCE_WEIGHT", "1.0"]),
    "resim": ("resim_c4", []),
    "dense": ("moco_v2", ["METHOD.NAME", "dense"]),
    "dense_simsiam": ("simsiam", ["METHOD.NAME", "dense_simsiam"]),
}
SIGNS = ("feature_std", "accuracy", "positive_similarity", "negative_similarity", "uniformity")
SIGNS += ("teacher_entropy",)
MOMENTA = ["MOCO.MOMENTUM", "0.999", "BYOL.MOMENTUM", "0.99", "PIXPRO.MOMENTUM", "0.99"]
MOMENTA += ["DINO.MOMENTUM", "0.99"]  # those of long runs, under which a spread falls at first
IMAGES, SIDE = 256, 96  # scenes, and their side in pixels
PART = 5  # steps whose mean counts


def lines(
    method: str,
    seed: int,
    steps: int,
    images: Path,
    collapse: bool,
    long: bool = True,
    more: Sequence[str] = (),
) -> list[dict]:
    """The log of one run, a line a step; ``long``: with the momenta of long runs."""
    preset, own = TWINS[method]
    with tempfile.TemporaryDirectory() as folder:
        options = ["DATA.PATH", str(images), "OUTPUT_DIR", folder, "SEED", str(seed)]
        options += ["SOLVER.MAX_STEPS", str(steps), "CHECKPOINT.STEPS", str(steps)]
        options += ["LOG.PERIOD", "1", "DATA.WORKERS", "0", "DEVICE", "cpu"]
        options += ["SOLVER.REFERENCE_BATCH", "16"] if collapse else []
        momenta = MOMENTA if long else []
        train(config.load(f"{preset}_scenes", [*own, *momenta, *options, *more]))
        text = (Path(folder) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def parts(log: list[dict], key: str) -> list[float]:
    """The means of a key over every ``PART`` steps."""
    values = [line[key] for line in log if key in line]
    return [sum(values[at : at + PART]) / PART for at in range(0, len(values) - PART + 1, PART)]


def bands(logs: list[list[dict]]) -> dict[str, list[float]]:
    """Of each sign that the runs logged, the least and the largest mean."""
    keys = [f"stat/{what}{name}" for what in ("", "positions_") for name in SIGNS]
    found = {key: [value for log in logs for value in parts(log, key)] for key in keys}
    return {key: [round(f(v), 4) for f in (min, max)] for key, v in found.items() if v}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(TWINS), default=list(TWINS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--collapse", action="store_true", help="16 times the rate")
    parser.add_argument("--runs", nargs="+", default=[], metavar="DIR", help="widen by these runs")
    parser.add_argument("--write", metavar="FILE", help="the bands as JSON, with the command")
    args = parser.parse_args(argv)
    if args.runs:
        if not args.write:
            parser.error("--runs needs --write, the file whose bands they widen")
        widen(args.runs, Path(args.write), argv)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--train", str(IMAGES), "--val", "2", "--size", str(SIDE), "--seed", "1"]
        scenes.main([f"{folder}/scenes", *options, "--workers", "1"])
        images = Path(folder) / "scenes" / "imagenet" / "train"
        for method in args.methods:
            logs = [
                lines(method, seed, args.steps, images, args.collapse) for seed in range(args.seeds)
            ]
            measured = bands(logs)
            for key, (low, high) in measured.items():
                first = sum(log[0][key] for log in logs) / len(logs)
                last = sum(parts(log, key)[-1] for log in logs) / len(logs)
                print(
                    f"{method:15} {key:35} {low:8.4f} to {high:8.4f}   step 1 {first:8.4f}"
                    f"   end {last:8.4f}",
                    flush=True,
                )
            if args.write:
                keep(Path(args.write), method, command(argv), measured)


def widen(runs: list[str], file: Path, argv: list[str]) -> None:
    """Widen the bands in the file by those of finished runs, by method."""
    held = json.loads(file.read_text())
    logs: dict[str, list[list[dict]]] = {}
    for run in runs:
        method = yaml.safe_load((Path(run) / "config.yaml").read_text())["METHOD"]["NAME"]
        text = (Path(run) / "metrics.jsonl").read_text()
        logs.setdefault(method, []).append([json.loads(line) for line in text.splitlines()])
    for method, own in logs.items():
        found = bands(own)
        for key, (low, high) in held[method]["bands"].items():
            least, most = found.get(key, (low, high))
            found[key] = [min(low, least), max(high, most)]
        keep(file, method, f"{held[method]['command']} && {command(argv)}", found)


def command(argv: list[str]) -> str:
    return shlex.join(["python", "-m", "benchmarks.health_bands", *argv])


def keep(file: Path, method: str, command: str, measured: dict[str, list[float]]) -> None:
    """Write the bands of a method into the file, with the command that measured them."""
    found = json.loads(file.read_text()) if file.exists() else {}
    found[method] = {"command": command, "bands": measured}
    rows = [f" {json.dumps(name)}: {json.dumps(found[name])}" for name in TWINS if name in found]
    file.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
