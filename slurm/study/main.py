"""``densessl study``: is pretraining worth it on these images, by how much, how sure."""

import logging
import sys
from argparse import Namespace
from pathlib import Path

from densessl.core import command, log
from densessl.core.errors import InputError, unknown
from densessl.core.files import unmade_when_refused
from densessl.core.options import argument
from densessl.core.parser import Parser

from .. import flags
from . import model

DESCRIPTION = """\
Say what pretraining is worth on your own images: it pretrains on the unlabelled ones, and measures
that beside random starts and weights that you give, with 1 %, 10 % and all of your labels, several
times each. The end is a page that says in words whether it is worth it, by how much, and how sure
that is. Run again, the same command resumes.

The plan is printed first, and --budget cuts it to the time that there is: here it is measured by a
short trial how long things take. The jobs go to SLURM, or run here with --local.

What TRAIN and VAL are, by --task:
  semseg     IMAGES:MASKS, folders of images and of PNG masks; or a folder that holds both
             (images/ and labels/ or masks/; SegNet's CamVid, train beside trainannot)
  det, mask  ANNOTATIONS.json:IMAGES, COCO's format and the folder of its images
  cls        a folder that holds a folder of images for each class
"""
TASKS = ("semseg", "det", "mask", "cls")


def parser() -> Parser:
    made = Parser(prog="densessl study", description=DESCRIPTION)
    made.add_argument("--images", metavar="DIR", help="unlabelled ones, to pretrain on")
    made.add_argument("--train", metavar="TRAIN", help="labelled data to learn from")
    made.add_argument("--val", metavar="VAL", help="labelled data to measure with")
    made.add_argument("--task", metavar="TASK", help=f"one of {', '.join(TASKS)}")
    made.add_argument("-o", "--output", metavar="DIR", default="study", help="for everything")
    made.add_argument("--budget", metavar="TIME", help="of all of it, as 2h or 90min (--local)")
    made.add_argument(
        "--weights",
        "-w",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="weights to compare with, as imagenet=resnet50.pth",
    )
    made.add_argument(
        "--methods", metavar="NAMES", help="configs of densessl pretrain, as simclr,densecl"
    )
    made.add_argument("--network", metavar="NAME", help="of all arms; by default what suits")
    made.add_argument(
        "--steps",
        type=argument(">= 1"),
        metavar="N",
        help="of each pretraining, instead of what fits",
    )
    made.add_argument(
        "--no-trial",
        action="store_true",
        help="do not measure speeds; the plan then shows no times",
    )
    made.add_argument(
        "--seeds", type=argument(">= 1"), default=3, metavar="K", help="of everything random"
    )
    made.add_argument("--labels", default="1,10,100", metavar="LIST", help="shares, in per cent")
    made.add_argument("--classes", metavar="FILE", help="semseg: names of classes, one a line")
    made.add_argument("--ignore", type=int, metavar="N", help="semseg: the value of no class (255)")
    for name in ("image", "mask"):
        made.add_argument(f"--{name}-suffix", metavar="END", help=f"semseg: {name}s are NAME + END")
    made.add_argument("--mini", action="store_true", help="protocols in miniature, for scenes")
    made.add_argument("--local", action="store_true", help="on this machine, without SLURM")
    made.add_argument("--page", metavar="DIR", help="make the page of a study again, and stop")
    made.add_argument("--measure", metavar="ARM", help="one job: the trials of an arm of --output")
    flags.add(made, gpus=1)
    return made


def main(argv: list[str]) -> int:
    """Run the verb; see DESCRIPTION."""
    args = parser().parse_args(argv)
    if args.page:
        return _page(Path(args.page))
    folder = Path(args.output).absolute()
    if args.measure:
        return _measure(args, folder)
    _check(args)
    cluster = flags.read(args)
    with unmade_when_refused(folder):
        from . import running

        log.setup()
        plan, graph = running.planned(args, folder, command.line())
        if args.dry_run:
            sys.stdout.write(running.describe(plan))
            return 0
        print(running.describe(plan), file=sys.stderr)
    if args.local:
        return running.run_here(plan, graph, folder)
    flags.submit(graph.jobs(), folder, cluster)
    return 0


def _check(args: Namespace) -> None:
    for name in ("images", "train", "val", "task"):
        if not getattr(args, name):
            raise InputError(f"--{name} is missing (see 'densessl study --help')")
    if args.task not in TASKS:
        raise unknown("task", args.task, TASKS, "--task")
    from . import planning

    planning.check(args)
    if args.budget and (args.steps or args.no_trial):
        other = "--steps" if args.steps else "--no-trial"
        raise InputError(f"--budget {args.budget} and {other}: the budget decides; give one")
    flags.require_cluster(args)


def _measure(args: Namespace, folder: Path) -> int:
    from . import running

    log.setup()
    return running.measure(running.graph_of(folder), args.measure, folder)


def _page(folder: Path) -> int:
    from . import running

    log.setup()
    if model.read(folder) is None:
        raise InputError(f"{folder} holds no {model.FILE}: it is no folder of a study")
    running.page(folder)
    logging.getLogger("densessl").info("wrote %s", folder / "report.html")
    return 0
