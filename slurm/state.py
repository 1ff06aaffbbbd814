"""What a run folder says of its jobs on a cluster: the truth that outlives SLURM's memory.

In the folder of a graph, beside ``jobs/`` (what is finished, :class:`slurm.graph.Finished`) and
``logs/``:

    graph.json            the graph as it was submitted last, with the cluster's settings
    cluster/NAME.json     a job's submission: SLURM's number
    state/NAME.json       what the job itself said last: running, requeued, failed, …
    cancelled             there from ``densessl cancel`` until the next submission

Every file is written whole and by one process at a time: ``graph.json`` and ``cluster/`` by who
submits, a file of ``state/`` by the job's first process.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import NoneType
from typing import TypeVar

from densessl.core.errors import InputError
from densessl.core.files import read_json, write_json, write_text
from densessl.core.form import Form, fault, of_class

from .graph import Job, Resources, in_order

GRAPH = "graph.json"
NUMBER = re.compile(r"\d+(_\d+)?", re.ASCII)  # of a job, in an array with its place
BEGUN = ("jobs", "cluster", "state")  # one of these has a file of a job that was begun


Read = TypeVar("Read")
GRAPH_FORM: Form = {
    "settings": dict,
    "jobs": [
        {
            "name": str,
            "array?": str,
            "env?": {...: str},
            "resources": {
                "nodes?": int,
                "gpus?": int,
                "per?": str,
                "hours?": (int, float, NoneType),
            },
            **dict.fromkeys(("argv", "needs", "after", "program", "outputs", "content"), [str]),
        }
    ],
}


def now() -> str:
    """This moment as these files write it: ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass
class State:
    """What a job said last.

    ``state`` is ``running``, ``requeued`` (stopped politely, waits in the queue again), ``stopped``
    (politely, and not queued again), ``failed`` or ``done``. ``slurm_job`` is SLURM's number (with
    ``_k`` in an array), ``host`` the first machine. ``started`` and ``updated`` are ISO 8601 times,
    UTC; ``requeues`` counts polite stops and ``restarts`` SLURM's own (a node failed). ``code`` is
    the exit code, ``why`` what the end was in words, and ``error`` the last lines of the process
    that failed first.
    """

    state: str
    slurm_job: str = ""
    host: str = ""
    started: str = ""
    updated: str = ""
    requeues: int = 0
    restarts: int = 0
    code: int | None = None
    error: str = ""
    why: str = ""  # not in the files of earlier versions


@dataclass
class Submission:
    """A job as it was submitted: SLURM's number (with ``_k`` in an array) and when, ISO 8601."""

    slurm_job: str
    submitted: str


def write_graph(folder: Path, jobs: Sequence[Job], settings: dict) -> None:
    """Keep the graph and the cluster's settings, from which ``retry`` submits again.

    Jobs of an earlier graph in the folder that were begun are kept: two tables may share it.
    """
    jobs = [*jobs, *_of_earlier_graphs(folder, {job.name for job in jobs})]
    values = [asdict(job) | {"outputs": [str(path) for path in job.outputs]} for job in jobs]
    for value in values:
        value["argv"] = [str(part) for part in value["argv"]]
    graph = {"jobs": values, "settings": settings}
    path = folder / GRAPH
    text = json.dumps(graph, indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _of_earlier_graphs(folder: Path, names: set[str]) -> list[Job]:
    """The jobs of the folder's graph with other names that were begun, with all before them."""
    try:
        earlier = in_order(read_graph(folder)[0])
    except (InputError, ValueError):
        return []
    kept: list[Job] = []
    known = set(names)
    for job in earlier:
        begun = any((folder / part / f"{job.name}.json").exists() for part in BEGUN)
        if job.name not in names and begun and known.issuperset(job.before):
            kept.append(job)
            known.add(job.name)
    return kept


def read_graph(folder: str | os.PathLike) -> tuple[list[Job], dict]:
    """The jobs and the settings last submitted; InputError where the folder holds no graph."""
    path = Path(folder) / GRAPH
    try:
        values = read_json(path)
        if wrong := fault(values, GRAPH_FORM):
            raise ValueError(wrong)
        jobs = [_job(each) for each in values["jobs"]]
        in_order(jobs)
        return jobs, values["settings"]
    except FileNotFoundError:
        raise InputError(f"{folder} holds no jobs: there is no {GRAPH} in it") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a graph of jobs: {error}") from None


def _job(values: dict) -> Job:
    tuples = ("argv", "needs", "after", "program", "content")
    return Job(
        **values
        | {name: tuple(values[name]) for name in tuples}
        | {"outputs": tuple(map(Path, values["outputs"]))}
        | {"resources": Resources(**values["resources"])}
    )


def write_state(folder: Path, name: str, state: State) -> None:
    write_json(folder / "state" / f"{name}.json", asdict(state))


def read_state(folder: Path, name: str) -> State | None:
    """What the job said last; None where it never ran, or its file is damaged."""
    return _read(folder / "state" / f"{name}.json", State)


def write_submission(folder: Path, name: str, submission: Submission) -> None:
    write_json(folder / "cluster" / f"{name}.json", asdict(submission))


def read_submission(folder: Path, name: str) -> Submission | None:
    """The job's last submission; None where there was none, or its file is damaged."""
    found = _read(folder / "cluster" / f"{name}.json", Submission)
    try:
        if found and NUMBER.fullmatch(found.slurm_job):
            return found if datetime.fromisoformat(found.submitted).tzinfo else None
    except ValueError:
        pass
    return None


def _read(path: Path, kind: type[Read]) -> Read | None:
    try:
        values = read_json(path)
    except (FileNotFoundError, ValueError):
        return None
    values = {"why": ""} | values if isinstance(values, dict) else values
    keys = of_class(kind)
    return None if fault(values, keys) else kind(**{name: values[name] for name in keys})


def cancel(folder: Path) -> None:
    """Note that nothing of this folder is to be queued again."""
    write_text(folder / "cancelled", "")


def is_cancelled(folder: Path) -> bool:
    return (folder / "cancelled").exists()


def allow_again(folder: Path) -> None:
    """Take :func:`cancel` back."""
    (folder / "cancelled").unlink(missing_ok=True)
