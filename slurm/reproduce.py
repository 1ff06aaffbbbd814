"""``densessl reproduce PAPER/TABLE``: every job behind a published table, as one graph."""

import logging
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from densessl.core import log
from densessl.core.errors import InputError
from densessl.core.options import argument
from densessl.core.parser import Parser
from densessl.core.progress import duration

from . import cost, data, expansion, flags, pipeline
from .expansion import Pipeline
from .graph import Job, in_order
from .local import run_local
from .spec import Call

DESCRIPTION = """\
Run every job behind a published table: the pretrainings, their proved conversions, the trials, and
the table with the published numbers beside ours. Run again, what is finished is not run again,
and what it says first is what the rest costs. Tables that share a folder share what they have in
common. TABLE is one of --list, or a pipeline file of your own (page 'Reproducing a table' of the
documentation).

The jobs go to SLURM, or run here with --local; --dry-run only shows them.
"""


def parser() -> Parser:
    made = Parser(prog="densessl reproduce", description=DESCRIPTION)
    made.add_argument("table", nargs="?", metavar="TABLE", help="such as setsim/table4, or a file")
    made.add_argument("--list", action="store_true", help="print the tables, and stop")
    made.add_argument(
        "-o", "--output-dir", default="reproduce", metavar="DIR", help="for all of it"
    )
    made.add_argument("--local", action="store_true", help="on this machine, without SLURM")
    made.add_argument("--mini", action="store_true", help="in miniature, on drawn scenes")
    made.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="[NAME=]DIR",
        help="the folder of all data sets (else DETECTRON2_DATASETS), or of one, as imagenet=DIR; "
        "what is pretrained on also as imagenet=s3://…",
    )
    made.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="METHOD=FILE",
        help="a checkpoint for a row, instead of its pretraining or of none",
    )
    for name, default, text in (
        ("trials", None, "of every protocol"),
        ("seeds", None, "pretrainings of every row, with SEED 0, 1, …"),
        ("jobs", 1, "with --local: so many side by side"),
    ):
        kind = argument(">= 1")
        made.add_argument(f"--{name}", type=kind, default=default, metavar="K", help=text)
    flags.add(made)
    return made


def main(argv: list[str]) -> int:
    """Run the verb; see DESCRIPTION."""
    args = parser().parse_args(argv)
    if args.list:
        sys.stdout.write(listing())
        return 0
    if not args.table:
        raise InputError(f"TABLE is missing: one of {', '.join(pipeline.built_in())}, or a file")
    flags.require_cluster(args)
    cluster = flags.read(args)
    found = load(args)
    if args.dry_run:
        sys.stdout.write(describe(found))
        return 0
    if args.local and found.spec.paper and not (found.mini or gpus_here()):
        raise InputError(
            f"{args.table} needs GPUs, and this machine has none: submit it to a cluster, or see "
            "how it goes with --mini"
        )
    found.prepare()
    print(cost.summary(found.jobs, found.is_done()), file=sys.stderr)
    if args.local:
        return run_here(found, args.jobs)
    log.setup()
    flags.submit(found.jobs, found.folder, cluster)
    return 0


def load(args: Namespace) -> Pipeline:
    """The jobs that the parsed arguments name; InputError."""
    folder = Path(args.output_dir).absolute()
    weights = {}
    for word in args.weights:
        method, equals, file = word.rpartition("=")
        if not (equals and method and file):
            raise InputError(f"--weights '{word}' is not METHOD=FILE")
        weights[method] = file
    call = Call(
        folder,
        data.parse(args.data, folder),
        weights,
        seeds=args.seeds,
        trials=args.trials,
        mini=args.mini,
        nodes=1 if args.local else args.nodes,
        gpus=gpus_here() if args.local else args.gpus,
        local=args.local,
    )
    return expansion.expand(pipeline.read(args.table), call)


def run_here(found: Pipeline, at_once: int = 1) -> int:
    """All jobs on this machine, ``at_once`` side by side, then the table."""
    from densessl.d2_transfer.tables import main as table

    log.setup(found.folder)
    run_local(found.jobs, found.folder, at_once=at_once)
    for job in found.jobs:
        if job.argv[0] == "table":
            words, output = _to_screen([str(word) for word in job.argv[1:]])
            table.main(words)
            if output:
                logging.getLogger("densessl").info("the table is %s", output)
    return 0


def _to_screen(words: Sequence[str]) -> tuple[list[str], str]:
    """The words of ``densessl table`` without the file that it writes, and that file, if any."""
    left, output = [], ""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in ("-o", "--output"):
            output = value if equals else next(rest, "")
        else:
            left.append(word)
    return left, output


def listing() -> str:
    """A line for each built-in table: its name, and what it says it is."""
    return "".join(f"{name:22s} {pipeline.description(name)}\n" for name in pipeline.built_in())


def describe(found: Pipeline) -> str:
    """The jobs in their order with what they wait for, what is missing, and the cost."""
    is_done = found.is_done()
    lines = [f"{found.spec.name}: {len(found.jobs)} jobs in {found.folder}", ""]
    groups: dict[str, list[Job]] = {}
    for job in in_order(found.jobs):
        groups.setdefault(job.array or job.name, []).append(job)
    for name, group in groups.items():
        lines += _of_group(name, group, sum(is_done(job.name) for job in group))
    if found.left_out:
        methods = [row.method for row in found.left_out]
        given = shlex.quote(f"{methods[0]}=FILE")
        lines += ["", f"published alone: {', '.join(methods)}", f"  (--weights {given} adds one)"]
    if missing := found.data.missing(found.reads):
        lines += ["", f"warning: {expansion.missing_data(missing)}"]
    return "\n".join([*lines, "", cost.summary(found.jobs, is_done)]) + "\n"


def _of_group(name: str, group: Sequence[Job], done: int) -> list[str]:
    """Two lines on a job, or on an array of them."""
    first = group[0]
    state = "done" if done == len(group) else f"{done} of {len(group)} done" if done else "to do"
    count = f" x {len(group)}" if len(group) > 1 else ""
    waits = f" needs {', '.join(first.needs)}" if first.needs else ""
    waits += f" after {_in_short(first.after)}" if first.after else ""
    size, hours = first.resources, first.resources.hours
    on = f" on {size.nodes} x {size.gpus} GPUs" if size.gpus else ""
    on += f", about {duration(3600 * hours)}" if hours else ""
    name = name if count else first.name
    return [f"[{state}] {name}{count}{on}{waits}", f"    {command(first)}"]


def _in_short(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"


def command(job: Job) -> str:
    """The job's command line, as one types it."""
    if job.program == Job.program:
        return shlex.join(["densessl", *map(str, job.argv)])
    return shlex.join(["python", *job.program[1:], *map(str, job.argv)])


def gpus_here() -> int:
    """How many GPUs this machine has."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
