"""Jobs, what they need and leave, and how a finished one is known: by content, not by name."""

import hashlib
import heapq
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densessl.core.errors import InputError
from densessl.core.files import read_json, sha256, write_json
from densessl.core.form import NUMBER, Form, fault
from densessl.core.names import one_line

LONGEST = 240  # bytes of a job's name: a file's name has 255, with its suffix
MARKER: Form = {  # what is noted of a finished job
    "key": str,
    "seconds": NUMBER,
    "outputs": {...: {"size": int, "modified_ns": int, "sha256": str}},
}


@dataclass(frozen=True)
class Resources:
    """What a job asks of a cluster.

    ``gpus`` of each of ``nodes`` (0: CPUs alone). ``per`` says what gets a process of its own:
    ``gpu`` (pretraining joins one process a GPU), or ``node`` (the command starts its own
    processes). ``hours`` is the estimate of its wall-clock time, None where there is none.
    """

    nodes: int = 1
    gpus: int = 0
    per: str = "node"
    hours: float | None = None

    @property
    def processes(self) -> int:
        """That the cluster starts."""
        return self.nodes * (self.gpus if self.per == "gpu" and self.gpus else 1)


@dataclass(frozen=True)
class Job:
    """One ``densessl`` verb with its arguments, and what must be there before and after.

    ``needs`` names the jobs that must have ended well before it, ``after`` those that must only
    have ended; ``outputs`` are files or folders that exist once it is finished; ``env`` is added to
    its environment; ``program`` is what runs ``argv``. ``content`` is what decides, with the jobs
    before, whether a finished job is still the same one (a config's hash, say); empty, the whole
    command does. Jobs with one ``array`` name are alike (the trials of one protocol), and a
    cluster gets them as one job array.
    """

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    outputs: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (sys.executable, "-m", "densessl")
    after: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    resources: Resources = Resources()
    array: str = ""

    @property
    def command(self) -> list[str]:
        return [*self.program, *map(str, self.argv)]

    @property
    def before(self) -> tuple[str, ...]:
        """All jobs that must have ended before it."""
        return (*self.needs, *self.after)


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs so that each comes after those before it, else as given."""
    by_name = {job.name: job for job in jobs}
    if len(by_name) < len(jobs):
        raise ValueError("two jobs have one name")
    for job in jobs:
        for need in job.before:
            if need not in by_name:
                raise ValueError(f"job '{job.name}' needs '{need}', which is not in the graph")
    position = {job.name: number for number, job in enumerate(jobs)}
    before = {job.name: set(job.before) for job in jobs}  # that are not in order yet
    behind: dict[str, list[str]] = {job.name: [] for job in jobs}
    for job in jobs:
        for need in before[job.name]:
            behind[need].append(job.name)
    ready = [number for number, job in enumerate(jobs) if not job.before]  # the first comes next
    ordered: list[Job] = []
    while ready:
        job = jobs[heapq.heappop(ready)]
        ordered.append(job)
        for name in behind[job.name]:
            before[name].discard(job.name)
            if not before[name]:
                heapq.heappush(ready, position[name])
    if len(ordered) < len(jobs):
        waiting = [name for name, left in before.items() if left]
        raise ValueError(f"these jobs wait for each other: {waiting}")
    return ordered


def longest_behind(jobs: Sequence[Job]) -> dict[str, int]:
    """By name, how many jobs wait for each one, counted along the longest row of them."""
    behind = {job.name: 0 for job in jobs}
    for job in reversed(in_order(jobs)):
        for name in job.before:
            behind[name] = max(behind[name], behind[job.name] + 1)
    return behind


def all_before(name: str, jobs: Mapping[str, Job]) -> set[str]:
    """The names of the jobs that come before one, directly or not."""
    names: set[str] = set()
    left = [name]
    while left:
        more = set(jobs[left.pop()].before) - names
        names |= more
        left += more
    return names


def check_names(jobs: Sequence[Job]) -> None:
    """InputError for a job whose name cannot be that of its files (logs/NAME.txt, …)."""
    for job in jobs:
        shown = one_line(job.name)
        if "/" in job.name or job.name.startswith(".") or shown != job.name:
            raise InputError(f"'{shown}' is no name for the files of a job")
        if (length := len(os.fsencode(job.name))) > LONGEST:
            raise InputError(
                f"the job '{shown}' has a name of {length} bytes, for its files; allowed: "
                f"{LONGEST} at most. Give its row or protocol a shorter 'name' or 'folder'"
            )


class Finished:
    """Which jobs of a graph are finished in a folder: ``folder/jobs/NAME.json`` says so.

    A job is finished when it ended well as it is now (its ``content``, or its command, is the
    same), after jobs that left the same content, and its outputs are there. What a job left is the
    hashes of its output files; so weights that came out the same again make nothing else run
    again.
    """

    def __init__(self, jobs: Sequence[Job], folder: str | os.PathLike):
        self.jobs: Mapping[str, Job] = {job.name: job for job in jobs}
        self.folder = Path(folder)

    def seconds(self, name: str) -> float | None:
        """The seconds that the job took when it finished; None when it has yet to run."""
        marker = self._marker(name, self._look_before(name))
        return marker["seconds"] if marker else None

    def of_all(self) -> dict[str, float]:
        """The seconds that every finished job took, by name; the files of each are read once."""
        seen, order = _Seen(), in_order([*self.jobs.values()])
        markers = {job.name: self._marker(job.name, seen) for job in order}
        return {name: marker["seconds"] for name, marker in markers.items() if marker}

    def mark(self, name: str, seconds: float) -> None:
        """Write that the job has ended well; its outputs must be there."""
        outputs = {str(path): _state(path) for path in self.jobs[name].outputs}
        for path, state in outputs.items():
            state["sha256"] = sha256(path) if Path(path).is_file() else ""
        key = self._key(name, self._look_before(name))
        values = {"key": key, "seconds": round(seconds, 1), "outputs": outputs}
        write_json(self._file(name), values)

    def _look_before(self, name: str) -> "_Seen":
        """What all jobs before one left, read in their order: of a thousand in a row each finds
        that before it, and Python's limit of calls within calls is far."""
        seen = _Seen()
        for job in in_order([self.jobs[each] for each in all_before(name, self.jobs)]):
            self._left(job.name, seen)
        return seen

    def missing(self, name: str) -> list[str]:
        """The outputs that are not there."""
        return [str(path) for path in self.jobs[name].outputs if not Path(path).exists()]

    def _file(self, name: str) -> Path:
        return self.folder / "jobs" / f"{name}.json"

    def _marker(self, name: str, seen: "_Seen") -> dict | None:
        if name not in seen.markers:
            seen.markers[name] = self._read_marker(name, seen)
        return seen.markers[name]

    def _read_marker(self, name: str, seen: "_Seen") -> dict | None:
        try:
            marker = read_json(self._file(name))
        except (FileNotFoundError, ValueError):
            return None
        if fault(marker, MARKER) or marker["key"] != self._key(name, seen):
            return None
        return None if self.missing(name) else marker

    def _key(self, name: str, seen: "_Seen") -> str:
        if name not in seen.keys:
            job = self.jobs[name]
            own: list = list(job.content) or [list(map(str, job.argv)), job.env]
            parts = [own, [self._left(need, seen) for need in job.before]]
            text = json.dumps(parts, sort_keys=True)
            seen.keys[name] = hashlib.sha256(text.encode()).hexdigest()
        return seen.keys[name]

    def _left(self, name: str, seen: "_Seen") -> list[str]:
        """What the job left: the hashes of its output files, or its key before it has ended."""
        if name not in seen.left:
            seen.left[name] = self._read_left(name, seen)
        return seen.left[name]

    def _read_left(self, name: str, seen: "_Seen") -> list[str]:
        marker = self._marker(name, seen)
        if marker is None:
            return [self._key(name, seen)]
        noted = marker["outputs"].values()  # of other paths where the folder has moved since
        hashes = [
            _hash(Path(p), state) for p, state in zip(self.jobs[name].outputs, noted, strict=False)
        ]
        return hashes if all(hashes) and hashes else [marker["key"]]


class _Seen:
    """What was read of jobs in one look at a graph, in which many may wait for the same ones."""

    def __init__(self) -> None:
        self.markers: dict[str, dict | None] = {}
        self.keys: dict[str, str] = {}
        self.left: dict[str, list[str]] = {}


def _state(path: str | os.PathLike) -> dict:
    status = os.stat(path)
    return {"size": status.st_size, "modified_ns": status.st_mtime_ns}


def _hash(path: Path, state: dict) -> str:
    """The file's hash: the one noted, while size and time say that it is the same file."""
    now = _state(path)
    if all(now[key] == state[key] for key in now):
        return state["sha256"]
    return sha256(path) if path.is_file() else ""
