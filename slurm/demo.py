"""``densessl demo``: the whole pipeline in miniature, from images to the table, on a laptop's CPU.

Its jobs are those of ``configs/papers/demo.yaml``.
"""

import logging
import shutil
import sys
import time
from pathlib import Path

from densessl.core.errors import EnvironmentLacks
from densessl.core.limits import cores
from densessl.core.options import argument
from densessl.core.parser import Parser
from densessl.core.progress import duration
from densessl.d2_transfer import compat

from . import data, expansion, pipeline, reproduce
from .spec import Call

NEEDS = 2e9  # bytes: checkpoints, weights, features and a detector are 1 GB, and some for moving

INTRODUCTION = """\
The whole pipeline in miniature: 900 drawn scenes, three pretrainings of a ResNet-18 with SimCLR, a
linear probe of the frozen network's positions beside two random starts, proved conversion, a
Detectron2 fine-tuning, the table, a report. Seven to ten minutes on two cores.

The full run is the same with ImageNet, PASCAL VOC and eight GPUs:

    torchrun --standalone --nproc_per_node 8 -m densessl pretrain --config moco_v2 \\
        DATA.PATH imagenet/train OUTPUT_DIR moco
    torchrun --standalone --nproc_per_node 8 -m densessl pretrain --config setsim_paper \\
        DATA.PATH imagenet/train OUTPUT_DIR setsim
    export DETECTRON2_DATASETS=datasets
    densessl transfer moco/backbone_final.pth --protocol voc_det_c4 --gpus 8 -o voc/moco
    densessl transfer setsim/backbone_final.pth --protocol voc_det_c4 --gpus 8 -o voc/setsim
    densessl transfer random --protocol voc_det_c4 --gpus 8 -o voc/random
    densessl table voc --baseline random
"""


def main(argv: list[str]) -> int:
    """Run the whole pipeline in miniature; interrupted and run again, it resumes."""
    parser = Parser(prog="densessl demo", description=main.__doc__)
    parser.add_argument("-o", "--output", default="demo", metavar="DIR", help="for everything")
    parser.add_argument(
        "--seed",
        type=argument(">= 0"),
        default=0,
        metavar="K",
        help="of the scenes; the networks' seeds stay",
    )
    args = parser.parse_args(argv)
    folder = folder_of(args.output)
    compat.setup()  # what is missing is said now, not after the pretraining
    _require_disk(folder)
    begun = time.monotonic()
    print(INTRODUCTION, file=sys.stderr)
    gpus = min(reproduce.gpus_here(), 1)
    # two jobs of one thread use two cores better than one job of two threads
    at_once = 1 if gpus else min(cores(), 2)
    reproduce.run_here(load(folder, args.seed, gpus=gpus), at_once=at_once)
    logging.getLogger("densessl").info(
        "%s: open %s in a browser; the table is %s, the pictures are in %s",
        duration(time.monotonic() - begun),
        folder / "report.html",
        folder / "table.md",
        folder / "pictures",
    )
    return 0


def folder_of(output: str) -> Path:
    """The path of ``-o``; absolute where a job could take it for an option."""
    return Path(output).absolute() if output.startswith("-") else Path(output)


def load(folder: Path, seed: int = 0, **changes) -> expansion.Pipeline:
    """The demo's jobs in ``folder``, on the scenes of ``seed``; ``changes`` are fields of
    :class:`spec.Call`."""
    scenes = {"seed": seed, **changes.pop("scenes", {})}
    call = Call(folder, data.parse([], folder), local=True, scenes=scenes, **changes)
    return expansion.expand(pipeline.read("demo"), call)


def _require_disk(folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    has = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(there).free
    if free < NEEDS - has:
        raise EnvironmentLacks(
            f"the demo needs {(NEEDS - has) / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB "
            "free; name a folder on another disk with -o DIR"
        )
