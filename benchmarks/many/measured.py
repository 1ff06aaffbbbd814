"""One measurement in a process of its own: ``python -m benchmarks.many.measured NAME FEW N DIR…``.

It runs on the few of the first folder first, so that imports are not counted, and prints as JSON
what the run on the n of the second took.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from fvcore.common.config import CfgNode

from densessl.d2_transfer.tables import main as table
from densessl.pretrain import audit, config
from densessl.pretrain.engine.order import BatchOrder
from densessl.pretrain.views import ImageSource, build_source
from densessl.pretrain.views.dataset import build_dataset, collate
from densessl.slurm import local, reproduce, status

from ..memory import peak, reset_peak
from . import prepared

BATCH, VIEWED = 256, 8  # images of a step, and of which views are made
Run = Callable[[], object]


def source(kind: str, path: Path, annotations: str = "") -> ImageSource:
    """The images of a data set."""
    data = {"SOURCE": kind, "PATH": str(path), "CLASSES": "", "ANNOTATIONS": annotations}
    return build_source(CfgNode({"DATA": data}))


def of_folder(at: Path, n: int) -> Run:
    return partial(source, "folder", at / "images")


def of_list(at: Path, n: int) -> Run:
    return partial(source, "list", at / "images" / "list.txt")


def of_coco(at: Path, n: int) -> Run:
    return partial(source, "coco", at / "images", str(at / "images" / "coco.json"))


def of_shards(at: Path, n: int) -> Run:
    """The first time, when they are indexed."""
    for index in (at / "shards").glob("*.npz"):
        index.unlink()
    return partial(source, "shards", at / "shards")


def of_indexed_shards(at: Path, n: int) -> Run:
    source("shards", at / "shards")
    return partial(source, "shards", at / "shards")


def resumed(at: Path, n: int) -> Run:
    """The batch of the last step but one of the third epoch, from the source on."""
    cfg = config.load("moco_v2", ["DATA.PATH", str(at / "images"), "VIEWS.SIZE", "32"])
    images = source("folder", at / "images")

    def run() -> None:
        images.fingerprint()
        size = min(BATCH, n)
        step = 3 * (n // size) - 2
        (batch,) = BatchOrder(images=n, batch_size=size, seed=0, first=step, last=step + 1)
        dataset = build_dataset(cfg, images, None)
        collate([dataset[key] for key in batch[:VIEWED]])

    return run


def audited(at: Path, n: int) -> Run:
    argv = [str(at / "images"), "--workers", "1", "-o", str(at / "audit.json")]
    return partial(audit.main, argv)


def tables(at: Path, n: int) -> Run:
    return partial(table.main, [str(at / "trials")])


def of_a_paper(at: Path, n: int) -> Run:
    return partial(table.main, [str(at / "trials"), "--paper", "setsim/table4"])


def looked_at(at: Path, n: int) -> Run:
    return partial(status.main, [str(at / "run")])


def shown(at: Path, n: int) -> Run:
    return partial(reproduce.main, [str(at / "many.yaml"), "--dry-run", "-o", str(at / "new")])


def submitted(at: Path, n: int) -> Run:
    """To programs of SLURM's names that do nothing."""
    os.environ["PATH"] = f"{at / 'bin'}:{os.environ['PATH']}"
    return partial(reproduce.main, [str(at / "many.yaml"), "-o", str(at / "submitted")])


def run_again(at: Path, n: int) -> Run:
    """What a graph does whose jobs have all ended."""
    found = prepared.expanded(at / "many.yaml", at / "ended")
    return partial(local.run_local, found.jobs, found.folder)


IMAGES = {
    "source: a folder": of_folder,
    "source: a list file": of_list,
    "source: a COCO JSON": of_coco,
    "source: shards, first time": of_shards,
    "source: shards, indexed": of_indexed_shards,
    "resume late in an epoch": resumed,
    "audit": audited,
}
RECORDS = {"table": tables, "table --paper": of_a_paper}
JOBS = {
    "status": looked_at,
    "reproduce --dry-run": shown,
    "reproduce (submits)": submitted,
    "reproduce --local, all ended": run_again,
}
MEASURED = IMAGES | RECORDS | JOBS


def processor() -> float:
    """Seconds of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def measure(run: Run) -> dict[str, float]:
    """Processor time and time by the clock in seconds, and the peak of memory above now's, MiB."""
    before = reset_peak()
    began, used = time.perf_counter(), processor()
    run()
    used, clock = processor() - used, time.perf_counter() - began
    return {"processor": used, "clock": clock, "added": peak() - before}


def main() -> None:
    name, few, n, *folders = sys.argv[1:]
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        for number, at in zip((int(few), int(n)), map(Path, folders), strict=True):
            found = measure(MEASURED[name](at, number))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
