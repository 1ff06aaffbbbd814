"""``densessl demo``: the whole way in miniature, from images to the table, on a laptop's CPU."""

import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from console import log
from console.errors import EnvironmentLacks
from console.parser import Parser
from console.progress import duration
from d2_transfer import compat
from d2_transfer.tables import main as table

from .graph import Job
from .local import run_local

PROTOCOL = "voc_det_c4"
METHODS = {"moco": "demo_moco_v2", "setsim": "demo_setsim"}  # with the config of each
NEEDS = 3e9  # bytes: two checkpoints, their weights and six trials are 1.9 GB, and some for moving

INTRODUCTION = """\
The whole way in miniature: drawn images, pretraining of a real ResNet-50 with MoCo-v2 and SetSim,
proved conversion, {trials} Detectron2 fine-tunings each and from a random start ({protocol}), the
table. About ten minutes on two cores. It shows that the way works and says nothing about the
methods: a few dozen steps on small images learn next to nothing.

The full run is the same with ImageNet, PASCAL VOC and eight GPUs:

    torchrun --nproc_per_node 8 -m densessl pretrain --config moco_v2 \\
        DATA.PATH imagenet/train OUTPUT_DIR moco
    torchrun --nproc_per_node 8 -m densessl pretrain --config setsim_paper \\
        DATA.PATH imagenet/train OUTPUT_DIR setsim
    export DETECTRON2_DATASETS=datasets
    densessl transfer moco/backbone_final.pth --protocol {protocol} --gpus 8 -o voc/moco
    densessl transfer setsim/backbone_final.pth --protocol {protocol} --gpus 8 -o voc/setsim
    densessl transfer random --protocol {protocol} --gpus 8 -o voc/random
    densessl table voc --baseline random
"""


def main(argv: list[str]) -> int:
    """Run the whole way in miniature; interrupted and run again, it goes on."""
    parser = Parser(prog="densessl demo", description=main.__doc__)
    parser.add_argument("-o", "--output", default="demo", metavar="DIR", help="for everything")
    folder = Path(parser.parse_args(argv).output)
    compat.setup()  # what is missing is said now, not after the pretraining
    _require_disk(folder)
    begun = time.monotonic()
    trials = 2
    print(INTRODUCTION.format(protocol=PROTOCOL, trials=trials), file=sys.stderr)
    log.setup(folder)
    run_local(jobs(folder, trials=trials), folder)
    table.main([str(folder / "transfer"), "--baseline", "random"])
    logging.getLogger("densessl").info(
        "%s: the table is %s, the pictures are in %s",
        duration(time.monotonic() - begun),
        folder / "table.md",
        folder / "pictures",
    )
    return 0


def _require_disk(folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    has = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(there).free
    if free < NEEDS - has:
        raise EnvironmentLacks(
            f"the demo needs {(NEEDS - has) / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB "
            "free; name a folder on another disk with -o DIR"
        )


def jobs(
    folder: Path,
    trials: int,
    train: int = 256,
    val: int = 64,
    size: int = 128,
    pretrain: Sequence[str] = (),
    transfer: Sequence[str] = (),
) -> list[Job]:
    """The graph of the demo.

    ``train`` and ``val`` images of ``size`` pixels; ``pretrain`` and ``transfer`` are further
    ``KEY VALUE`` overrides of those verbs.
    """
    scenes = folder / "scenes"
    data = {"DETECTRON2_DATASETS": str(scenes.resolve())}
    numbers = ("--train", train, "--val", val, "--size", size, "--seed", 0)
    graph = [
        Job("scenes", ("scenes", scenes, *numbers), outputs=(scenes / "densessl_scenes.json",))
    ]
    weights = {method: folder / "pretrain" / method / "backbone_final.pth" for method in METHODS}
    converted = {method: folder / "weights" / f"{method}.pkl" for method in METHODS}
    for method, config in METHODS.items():
        where = ("DATA.PATH", scenes / "imagenet" / "train", "OUTPUT_DIR", weights[method].parent)
        graph.append(
            Job(
                f"pretrain-{method}",
                ("pretrain", "--config", config, *where, *pretrain),
                needs=("scenes",),
                outputs=(weights[method],),
            )
        )
    for method in METHODS:
        graph.append(
            Job(
                f"convert-{method}",
                ("convert", weights[method], "-o", converted[method]),
                needs=(f"pretrain-{method}",),
                outputs=(converted[method],),
            )
        )
    image = scenes / "VOC2007" / "JPEGImages" / "000003.jpg"  # a person on a hill
    pictures = folder / "pictures"
    for method in METHODS:
        views = pictures / f"views_{method}"
        graph.append(
            Job(
                f"views-{method}",
                ("show", weights[method], image, "-o", views, "--size", 224, "--seed", 3),
                needs=(f"pretrain-{method}",),
                outputs=(views / f"{image.stem}.png",),
            )
        )
    options = ("--protocol", PROTOCOL, "--mini", "--trials", trials)
    starts = {"random": "random", **converted}
    results = {start: folder / "transfer" / start for start in starts}
    for start, weight in starts.items():
        graph.append(
            Job(
                f"transfer-{start}",
                ("transfer", weight, *options, "-o", results[start], *transfer),
                needs=("scenes",) if start == "random" else (f"convert-{start}",),
                outputs=(results[start] / "summary.json",),
                env=data,
            )
        )
    graph.append(
        Job(
            "detections",
            (results["setsim"] / "trial_1", "-o", pictures / "detections_setsim.png"),
            needs=("transfer-setsim",),
            outputs=(pictures / "detections_setsim.png",),
            env=data,
            program=(sys.executable, "-m", "d2_transfer.pictures"),
        )
    )
    graph.append(
        Job(
            "table",
            ("table", folder / "transfer", "--baseline", "random", "-o", folder / "table.md"),
            needs=tuple(f"transfer-{start}" for start in starts),
            outputs=(folder / "table.md",),
        )
    )
    return graph
