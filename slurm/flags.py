"""The flags of a cluster, which win over ``slurm.yaml``, and what is said after a submission."""

import logging
import os
import shlex
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.core.log import console
from densessl.core.options import argument

from . import settings, submission
from .graph import Job
from .settings import Cluster
from .submission import Placed

FLAGS = {  # the fields of Settings that are flags: (metavar, help)
    "partition": ("NAME", "SLURM's partition"),
    "account": ("NAME", "who pays"),
    "qos": ("NAME", "quality of service"),
    "constraint": ("WORDS", "features that the nodes must have"),
    "time": ("TIME", "limit of each job, as SLURM writes it: 24:00:00 is a day, 24:00 24 minutes"),
    "cpus_per_gpu": ("N", "CPUs for each GPU; of a job without GPUs, in all"),
    "mem_gb": ("GB", "memory of each node"),
    "signal_delay": ("SECONDS", "before the limit, when a job saves and is queued again"),
    "max_requeues": ("N", "how often a job is queued again"),
    "array_parallelism": ("N", "trials at a time"),
}
NAMES = {"cpus_per_gpu": "cpus", "mem_gb": "mem"}  # of flags that are not called as their field


def add(parser: ArgumentParser, gpus: int = 8) -> None:
    """Add the flags to a verb's parser; ``gpus`` is the default of ``--gpus``."""
    group = parser.add_argument_group(
        "cluster",
        "Without a flag slurm.yaml's value is taken (page 'On a SLURM cluster' of the "
        "documentation).",
    )
    for name, rule, default, text in (
        ("--nodes", ">= 1", 1, "machines of a job"),
        ("--gpus", ">= 0", gpus, "of each; 0: the CPU"),
    ):
        group.add_argument(name, type=argument(rule), default=default, metavar="N", help=text)
    for name, (metavar, text) in FLAGS.items():
        flag = "--" + NAMES.get(name, name).replace("_", "-")
        group.add_argument(flag, dest=name, metavar=metavar, help=text)
    group.add_argument("--settings", metavar="FILE", help="instead of the slurm.yaml that is found")
    group.add_argument("--dry-run", action="store_true", help="print what would be submitted")


def read(args: Namespace) -> Cluster:
    """The cluster's settings with the flags over them; InputError."""
    if args.nodes > 1 and not args.gpus:
        raise InputError(f"--nodes {args.nodes} needs GPUs; --gpus is 0")
    file = Path(args.settings) if args.settings else None
    if file and not file.is_file():
        raise InputError(f"--settings {file}: there is no such file")
    return settings.load({name: getattr(args, name) for name in FLAGS}, file)


def require_cluster(args: Namespace) -> None:
    """EnvironmentLacks where jobs are to be submitted, and cannot be."""
    if not (args.local or args.dry_run or shutil.which("sbatch")):
        raise EnvironmentLacks(
            "there is no SLURM here (no sbatch): run the same command on a cluster's login node, "
            "or with --local to run the jobs on this machine (--dry-run shows them)"
        )


def preview(jobs: Sequence[Job], folder: str | os.PathLike, cluster: Cluster) -> str:
    """All batch files, and before them in words what is easily misread."""
    times = dict.fromkeys(filter(None, (cluster.of(job).time for job in jobs)))
    limits = [f"# time limit {time}: {settings.understood(time)}\n" for time in times]
    if not times:
        limits = ["# time limit: the partition's own (set 'time' in slurm.yaml, or --time)\n"]
    return "".join(limits) + "\n" + submission.preview(jobs, folder, cluster)


def submit(jobs: Sequence[Job], folder: str | os.PathLike, cluster: Cluster) -> None:
    """Submit the jobs, and show what became of each and how to resume."""
    tell(submission.submit(jobs, folder, cluster), folder, cluster)


def tell(placed: Sequence[Placed], folder: str | os.PathLike, cluster: Cluster) -> None:
    """What became of each job or array, and the next commands: a table on a terminal; elsewhere a
    line each, but for those that were submitted now, which has been said."""
    rows = list(_rows(placed))
    if console().is_terminal:
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("job", "SLURM", "state", "waits for"):
            grid.add_column(name)
        for row in rows:
            grid.add_row(*(Text(part) for part in row))
        console().print(grid)
    else:
        for name, number, became, _ in (row for row in rows if row[2] != "submitted"):
            numbered = f" as job {number}" if number else ""
            logging.getLogger("densessl").info("%s: %s%s", name, became, numbered)
    times = dict.fromkeys(cluster.of(each.job).time for each in placed)
    for time in filter(None, times):
        logging.getLogger("densessl").info("time limit: %s", settings.understood(time))
    logging.getLogger("densessl").info(
        "densessl status %s shows how they do; densessl cancel %s stops them",
        *[shlex.quote(str(folder))] * 2,
    )


def _rows(placed: Sequence[Placed]):
    """Name, number, state and needs, with the jobs of an array that are alike in one."""
    groups: dict[tuple, list[Placed]] = {}
    for each in placed:
        main = each.slurm_job.split("_")[0]
        key = (each.job.array, main, each.state) if each.job.array else (each.job.name,)
        groups.setdefault(key, []).append(each)
    states: Mapping[str, str] = {each.job.name: each.state for each in placed}
    for group in groups.values():
        first = group[0]
        count = f" x {len(group)}" if len(group) > 1 else ""
        name = first.job.array if count else first.job.name
        number = first.slurm_job.split("_")[0] if count else first.slurm_job
        waits = [need for need in first.job.before if states[need] != "done"]
        short = ", ".join(waits) if len(waits) < 4 else f"{waits[0]} and {len(waits) - 1} more"
        became = "finished before" if first.state == "done" else first.state
        yield name + count, number, became, "" if first.state == "done" else short
