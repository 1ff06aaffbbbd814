"""A graph of jobs goes to SLURM: what is finished, queued or running is left alone.

The batch files are Submitit's. Every submission is noted in the run folder at once, so that one
that failed half-way resumes when it is run again.
"""

import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from densessl.core.errors import DenseSSLError, EnvironmentLacks, InputError, StoppedEarly
from densessl.core.lock import locked
from densessl.core.names import one_line

from . import commands, state
from .batch import JobBatch
from .graph import Finished, Job, all_before, check_names, in_order
from .queue import Queued, read_queue
from .settings import Cluster
from .task import Task

ENDING = "COMPLETING"
PATTERN = ("%", "\\")  # sbatch replaces %j and its like in names of files, a backslash stops it
logger = logging.getLogger("densessl")


@dataclass(frozen=True)
class Placed:
    """What became of one job of a submission.

    ``state``: ``submitted``, ``done`` (finished before), or SLURM's own word, in lower case, for
    one that was in the queue already. ``slurm_job`` is SLURM's number, empty where it has none.
    """

    job: Job
    state: str
    slurm_job: str = ""


def submit(jobs: Sequence[Job], folder: str | os.PathLike, cluster: Cluster) -> list[Placed]:
    """Submit the jobs of a graph, those that are neither finished nor in the queue.

    Jobs with the same ``array`` go as one job array. ``needs`` become ``afterok``, ``after``
    becomes ``afterany``; a job whose needs fail is cancelled by SLURM. Raises InputError where
    sbatch refuses a job or one in the queue is now defined otherwise, EnvironmentLacks without
    SLURM, and StoppedEarly when SLURM was busy for half a minute; the same call resumes.
    """
    _require()
    folder = Path(folder).absolute()
    jobs = _absolute(in_order(jobs), cluster.chdir)
    _check(jobs, folder, cluster)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "cluster" / ".lock", lambda _: f"{folder}: another submission is busy"):
        finished = Finished(jobs, folder)
        active = _active(jobs, folder, finished)
        state.write_graph(folder, jobs, cluster.as_dict())
        state.allow_again(folder)
        left = _left(jobs, finished)
        todo = [job for job in jobs if job.name in left and job.name not in active]
        new = _submit(todo, jobs, folder, cluster, left)
    placed = []
    for job in jobs:
        if job.name in new:
            placed.append(Placed(job, "submitted", new[job.name]))
        elif job.name in active:
            number, queued = active[job.name]
            placed.append(Placed(job, queued.state.lower(), number))
        else:
            placed.append(Placed(job, "done"))
    return placed


def submit_again(
    jobs: Sequence[Job], folder: Path, cluster: Cluster, name: str, requeues: int
) -> str:
    """Submit a job anew from inside of itself, with all that wait for it; its new number.

    What waited for the old number is taken out of the queue.
    """
    again = {name}
    for job in in_order(jobs):
        if again.intersection(job.before):
            again.add(job.name)
    with locked(folder / "cluster" / ".lock", busy=None):
        left = _left(in_order(jobs), Finished(jobs, folder))
        todo = [job for job in in_order(jobs) if job.name in again & left]
        waiting = (state.read_submission(folder, job.name) for job in todo if job.name != name)
        numbers = [each.slurm_job for each in waiting if each]
        with suppress(OSError, subprocess.SubprocessError):  # else their needs fail, and they go
            if numbers:
                subprocess.run(["scancel", *numbers], timeout=60, capture_output=True)
        return _submit(todo, jobs, folder, cluster, left, {name: requeues})[name]


def preview(jobs: Sequence[Job], folder: str | os.PathLike, cluster: Cluster) -> str:
    """The batch files that :func:`submit` would give to sbatch, with the command of each job.

    Needs no SLURM, and asks none: what is finished is left out, what is in the queue is not known.
    Names of jobs stand where SLURM's numbers will.
    """
    _require_submitit()
    folder = Path(folder).absolute()
    jobs = _absolute(in_order(jobs), cluster.chdir)
    _check(jobs, folder, cluster)
    left = _left(jobs, Finished(jobs, folder))
    todo = [job for job in jobs if job.name in left]
    names = {job.name: job.name for job in jobs}
    parts = []
    for group in _groups(todo, cluster):
        depends = _depends(group[0], left, names)
        batch = JobBatch(tuple(group), cluster.of(group[0]), depends)
        executor = batch.executor(folder, cluster.chdir)
        runs = "".join(f"#   {one_line(shlex.join(job.command))}\n" for job in group)
        count = f" ({len(group)} jobs, one array)" if len(group) > 1 else ""
        parts.append(f"# {batch.name}{count}: each of its processes runs\n{runs}{executor.text()}")
    if done := len(jobs) - len(todo):
        parts.append(f"# finished before: {done} of {len(jobs)} jobs\n")
    return "\n".join(parts)


def _left(jobs: Sequence[Job], finished: Finished) -> set[str]:
    """The jobs, given in order, that are not finished, and those after them: what comes before may
    come out otherwise, and where it does not, they find themselves finished when they start."""
    left: set[str] = set()
    ended = finished.of_all()
    for job in jobs:
        if job.name not in ended or left.intersection(job.before):
            left.add(job.name)
    return left


def _absolute(jobs: Sequence[Job], chdir: str) -> list[Job]:
    """The jobs with outputs that are named the same from everywhere."""
    return [
        replace(job, outputs=tuple(Path(chdir, output) for output in job.outputs)) for job in jobs
    ]


def _check(jobs: Sequence[Job], folder: Path, cluster: Cluster) -> None:
    """InputError for what SLURM would understand otherwise than it is meant."""
    for sign in PATTERN:
        if sign in str(folder):
            raise InputError(
                f"the folder {one_line(folder)} has a '{sign}', which SLURM gives a meaning in the "
                "names of its logs; allowed for jobs on a cluster: a folder without one"
            )
    for what, path in (("folder", str(folder)), ("working folder", cluster.chdir)):
        if one_line(path) != path:
            raise InputError(
                f"the {what} '{one_line(path)}' has a control character; allowed for jobs on a "
                "cluster: a path that is one line"
            )
    check_names(jobs)
    for job in jobs:
        cluster.of(job)


def _require_submitit() -> None:
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise EnvironmentLacks("Submitit is not installed: pip install 'submitit>=1.5'") from None


def _require() -> None:
    _require_submitit()
    missing = [name for name in ("sbatch", "srun", "squeue") if not shutil.which(name)]
    if missing:
        raise EnvironmentLacks(
            f"there is no {', '.join(missing)} here: run this on a login node of a SLURM cluster "
            "(--dry-run prints what would be submitted, --local runs a pipeline on this machine)"
        )


def _active(jobs: Sequence[Job], folder: Path, finished: Finished) -> dict[str, tuple[str, Queued]]:
    """The jobs that are in the queue, with number and state; InputError where one was changed."""
    queue = _queue()
    before = {}
    if (folder / state.GRAPH).exists():
        before = {job.name: job for job in state.read_graph(folder)[0]}
    active = {}
    for job in jobs:
        submission = state.read_submission(folder, job.name)
        queued = queue.get(submission.slurm_job) if submission else None
        if submission is None or queued is None or finished.seconds(job.name) is not None:
            continue
        recorded = state.read_state(folder, job.name)
        if queued.state == ENDING and not (recorded and recorded.state == "requeued"):
            continue  # its own end is written, or it was killed
        if job.name in before and _what(before[job.name]) != _what(job):
            raise InputError(
                f"'{job.name}' is {queued.state.lower()} as job {submission.slurm_job} with other "
                f"options than now; first run: {shlex.join(['densessl', 'cancel', str(folder)])}, "
                "or take another folder"
            )
        active[job.name] = (submission.slurm_job, queued)
    return active


def _what(job: Job) -> tuple:
    """What the job does."""
    return list(map(str, job.argv)), job.program, job.env


def _queue() -> Mapping[str, Queued]:
    for delay in (*commands.BACKOFF, None):
        try:
            return read_queue() or {}
        except EnvironmentLacks:
            raise
        except DenseSSLError as error:
            if delay is None:
                raise StoppedEarly(
                    f"{error}, again and again; run the same command later to resume"
                ) from None
            logger.warning("%s; again in %d s", error, delay)
            time.sleep(delay)
    return {}


def _submit(
    todo: Sequence[Job],
    jobs: Sequence[Job],
    folder: Path,
    cluster: Cluster,
    left: set[str],
    requeues: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """Submit these jobs of the graph in their order, and note each at once; their numbers."""
    noted = {job.name: state.read_submission(folder, job.name) for job in jobs}
    numbers = {name: each.slurm_job for name, each in noted.items() if each}
    latest = max((each.submitted for each in noted.values() if each), default="")
    by_name = {job.name: job for job in jobs}
    positions = {name: position for position, name in enumerate(by_name)}
    new: dict[str, str] = {}
    for group in _groups(todo, cluster):
        depends = _depends(group[0], left, numbers)
        batch = JobBatch(tuple(group), cluster.of(group[0]), depends)
        submitted = _later_than(latest)
        tasks = [
            Task(
                str(folder),
                job.name,
                _with_all_before(job, by_name, positions),
                submitted,
                sys.executable,
                batch.settings.signal_delay,
                batch.settings.max_requeues,
                (requeues or {}).get(job.name, 0),
            )
            for job in group
        ]
        with commands.outside_of_a_job():
            submitit_jobs = batch.executor(folder, cluster.chdir).submit_array(tasks)
        for job, made in zip(group, submitit_jobs, strict=True):
            state.write_submission(folder, job.name, state.Submission(made.job_id, submitted))
            numbers[job.name] = new[job.name] = made.job_id
        logger.info("%s: submitted as job %s", batch.name, submitit_jobs[0].job_id.split("_")[0])
    return new


def _later_than(latest: str) -> str:
    """Now; a moment after the last submission where this machine's clock is behind."""
    now = datetime.now(timezone.utc)
    if latest:
        now = max(now, datetime.fromisoformat(latest) + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


def _groups(todo: Sequence[Job], cluster: Cluster) -> Iterator[list[Job]]:
    """The jobs in their order, those of one array that are alike together."""
    groups: dict[tuple, list[Job]] = {}
    for job in todo:
        alike = (job.array, job.needs, job.after, job.resources, repr(cluster.of(job)))
        groups.setdefault(alike if job.array else (job.name,), []).append(job)
    yield from groups.values()


def _depends(job: Job, left: set[str], numbers: Mapping[str, str]) -> str:
    """What the job waits for, as sbatch's ``--dependency``."""
    words = []
    for kind, names in (("afterok", job.needs), ("afterany", job.after)):
        waits = [name for name in names if name in left]
        if waits:
            words.append(":".join([kind, *(numbers[name] for name in waits)]))
    return ",".join(words)


def _with_all_before(
    job: Job, jobs: Mapping[str, Job], positions: Mapping[str, int]
) -> tuple[Job, ...]:
    """The job and all that come before it, in the order of their ``positions``."""
    names = {job.name} | all_before(job.name, jobs)
    return tuple(jobs[name] for name in sorted(names, key=positions.__getitem__))
