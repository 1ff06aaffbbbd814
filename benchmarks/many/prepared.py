"""What the measurements are taken on: n images, n trial records, a graph of n jobs."""

import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from densessl.d2_transfer import results
from densessl.slurm import data, expansion, pipeline, state
from densessl.slurm.expansion import Pipeline
from densessl.slurm.graph import Finished
from densessl.slurm.spec import Call

START = b"\xff\xd8"  # of a JPEG file
IN_A_FOLDER = 1300  # images of a class, as in ImageNet
IN_A_SHARD = 10_000
PROTOCOLS = ("voc_det_c4", "coco_mask_c4_1x", "coco_mask_fpn_1x", "cityscapes_inst", "voc_semseg")
SEEDS = 5  # pretrainings of a recipe, and fine-tunings of a pretraining
TRIALS = 9  # under each of two protocols, so that a row has 20 jobs
MOMENT = "2026-01-01T00:00:00+00:00"
NO_HASH = "0" * 64


def images(folder: Path, n: int) -> None:
    """n JPEG files in class folders, no two alike, with a list file, a COCO JSON and shards.

    Those that are there stay.
    """
    root = folder / "images"
    names = [f"n{k // IN_A_FOLDER:08d}/{k:08d}.jpg" for k in range(n)]
    for k, name in enumerate(names):
        file = root / name
        if k % IN_A_FOLDER == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
        if k % IN_A_FOLDER or not file.exists():
            file.write_bytes(_jpeg(k))
    (root / "list.txt").write_text("".join(f"{name}\n" for name in names))
    coco = {"images": [{"id": k, "file_name": name} for k, name in enumerate(names)]}
    (root / "coco.json").write_text(json.dumps(coco))
    _shards(folder / "shards", n)


def _jpeg(number: int) -> bytes:
    """A picture of 64 x 48 pixels with its number in a comment, which no other one has."""
    comment = b"%08d" % number
    head = START + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    pictures = _pictures()
    return head + pictures[number % len(pictures)].removeprefix(START)


@cache
def _pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (16, 6, 8, 3), dtype=np.uint8)
    pictures = []
    for pixels in noise:
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((64, 48)).save(stream, "JPEG", quality=50)
        pictures.append(stream.getvalue())
    return pictures


def _shards(folder: Path, n: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for first in range(0, n, IN_A_SHARD):
        with tarfile.open(folder / f"{first // IN_A_SHARD:06d}.tar", "w") as tar:
            for k in range(first, min(first + IN_A_SHARD, n)):
                member, data = tarfile.TarInfo(f"{k:08d}.jpg"), _jpeg(k)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def records(folder: Path, n: int) -> None:
    """n trial records as ``densessl transfer`` leaves them: of recipes with five pretrainings, five
    trials of each under five protocols, and five trials of a random start."""
    random = np.random.default_rng(0)
    shutil.rmtree(folder / "trials", ignore_errors=True)
    trials = itertools.islice(_trials(), n)
    for protocol, pretraining, seed in trials:
        recipe, of = divmod(pretraining - 1, SEEDS)
        start = pretraining == 0
        facts = {"dataset": "imagenet", "epochs": 200, "recipe": f"r{recipe}", "seed": of}
        ap = 50 + (0 if start else recipe % 7) + float(random.normal())
        metrics = {"bbox/AP": ap, "bbox/AP50": ap + 20, "bbox/AP75": ap + 5}
        metrics |= {f"bbox/AP-class{c}": ap for c in range(20)}
        weights = {"path": "random", "sha256": ""}
        if not start:
            weights = {"path": f"weights/{pretraining}.pkl", "sha256": f"{pretraining:064x}"}
        record = results.Record(
            method="random" if start else f"method{recipe}",
            weights=weights,
            pretrain={} if start else facts,
            protocol=protocol,
            variant="",
            seed=seed,
            metrics=metrics,
            config_sha256=NO_HASH,
            versions={"torch": "2.11.0", "detectron2": "0.5"},
            started=MOMENT,
            finished=MOMENT,
        )
        values = asdict(record)
        for name in ("folder", "evaluated", "range"):
            del values[name]
        trial = folder / "trials" / protocol / f"model{pretraining}" / f"trial_{seed}"
        trial.mkdir(parents=True)
        (trial / results.FILE).write_text(json.dumps(values, indent=2))


def _trials() -> Iterator[tuple[str, int, int]]:
    """Protocol, number of the pretraining (0: a random start) and seed, without an end."""
    for pretraining in itertools.count():
        for protocol in PROTOCOLS:
            for seed in range(1, SEEDS + 1):
                yield protocol, pretraining, seed


def jobs(folder: Path, n: int) -> None:
    """A pipeline of about n jobs: in ``new`` none has run, in ``ended`` all have, in ``run`` six of
    ten have, and one of ten is at work; and programs of SLURM's names that know of these."""
    for name in ("ended", "run", "submitted"):
        shutil.rmtree(folder / name, ignore_errors=True)
    _write_pipeline(folder / "many.yaml", n)
    _finish(expanded(folder / "many.yaml", folder / "ended"), 1.0)
    lines = _begin(expanded(folder / "many.yaml", folder / "run"), ended=0.6, begun=0.7)
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "queue").write_text("".join(f"{line}\n" for line in lines))
    (folder / "last").write_text("0")
    sbatch = f"read last <{folder}/last; echo $((last + 1)) >{folder}/last"
    scripts = {"squeue": f"exec cat {folder}/queue", "srun": "", "scancel": ""}
    scripts["sbatch"] = f"{sbatch}; echo Submitted batch job 9$last"
    for name, script in scripts.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


def _write_pipeline(file: Path, n: int) -> None:
    """Rows of a pretraining, a conversion and 18 trials each."""
    rows = [
        {
            "method": f"method{k}",
            "pretrain": "moco_v2",
            "name": f"method{k}",
            "options": {"SOLVER.BASE_LR": round(0.01 + k / 1e5, 6)},
        }
        for k in range(n // (2 + 2 * TRIALS))
    ]
    protocols = [{"name": name, "trials": TRIALS, "mini": True} for name in PROTOCOLS[:2]]
    values = {"description": "many jobs", "mini": True, "rows": rows, "protocols": protocols}
    values |= {"data": "imagenet/train", "scenes": {"train": 8, "val": 2, "size": 64}}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values, sort_keys=False))


def expanded(file: Path, folder: Path) -> Pipeline:
    """The jobs of a pipeline file."""
    return expansion.expand(pipeline.read(str(file)), Call(folder, data.parse([], folder)))


def _finish(found: Pipeline, share: float) -> None:
    """Outputs and notes for a share of the jobs, as if they had run."""
    finished = Finished(found.jobs, found.folder)
    for job in found.jobs[: round(share * len(found.jobs))]:
        for output in job.outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(job.name)
        finished.mark(job.name, 1.0)


def _begin(found: Pipeline, ended: float, begun: float) -> list[str]:
    """Files of a graph of which shares were begun and have ended; squeue's lines of the rest."""
    jobs, folder = found.jobs, found.folder
    state.write_graph(folder, jobs, {})
    _finish(found, ended)
    (folder / "logs").mkdir()
    lines = []
    for number, job in enumerate(jobs, 1):
        state.write_submission(folder, job.name, state.Submission(str(number), MOMENT))
        if number > begun * len(jobs):
            lines.append(f"{number}|PENDING|Dependency|N/A")
            continue
        runs = number > ended * len(jobs)
        said = state.State("running" if runs else "done", str(number), "n1", MOMENT, MOMENT)
        state.write_state(folder, job.name, said)
        log = "10:00:00 INFO pretrain 20/400, 2 h 10 min left  loss 7.1\n" * 100
        (folder / "logs" / f"{job.name}.txt").write_text(log)
        if runs:
            lines.append(f"{number}|RUNNING|None|N/A")
    return lines
