"""What a cluster wants to be told: ``slurm.yaml`` and the flags that win over it.

The file is looked for in the working folder, then in the user's config folder. Its keys are the
fields of :class:`Settings`; a section named after a verb (``pretrain:``, ``table:``, …) changes
some of them for the jobs of that verb. docs/cluster.md has an example.
"""

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from densessl.core import options
from densessl.core.errors import InputError
from densessl.core.names import one_line
from densessl.core.text import read_yaml

from .graph import Job

FILE = "slurm.yaml"
VERBS = ("pretrain", "convert", "transfer", "table", "scenes", "show", "report")  # that become jobs
# fmt: off
OWN = {  # sbatch's keys that are set from the job itself or from the fields below
    "job-name", "nodes", "ntasks", "ntasks-per-node", "array", "dependency", "chdir", "output",
    "kill-on-invalid-dep", "requeue", "no-requeue", "signal", "error", "open-mode", "wrap",
    "partition", "account", "qos", "constraint", "time", "mem", "cpus-per-task", "gres",
    "gpus-per-node", "parsable", "test-only", "wait",
}
# fmt: on
EARLY = 60  # seconds by which SLURM may send its signal too early, as sbatch's manual says
EXTRA = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)  # a long option of sbatch
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class Settings:
    """What one job is submitted with; empty where the cluster's default is to hold.

    ``time`` is as SLURM writes it; ``cpus_per_gpu`` is also what a job without GPUs gets in all;
    ``mem_gb`` is of a node. ``gpu_request`` names the key that asks for GPUs (``none`` where whole
    nodes are handed out), ``gpu_type`` their type. ``modules`` are loaded, then the lines of
    ``setup`` run, then ``container`` and ``python`` start the job's processes. ``extra`` are any
    further keys of sbatch. ``signal_delay`` seconds before its time limit a job is asked to save
    and is queued again, at most ``max_requeues`` times. ``array_parallelism`` trials run at a time.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = ""
    cpus_per_gpu: int = 8
    mem_gb: float | None = None
    gpu_request: str = "gpus-per-node"
    gpu_type: str = ""
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    container: str = ""
    python: str = ""
    extra: dict[str, str | bool] = field(default_factory=dict)
    signal_delay: int = 120
    max_requeues: int = 100
    array_parallelism: int = 256


OPTIONS = options.of_class(
    Settings,
    gpu_request=("gpus-per-node", "gres", "none"),
    cpus_per_gpu=">= 1",
    mem_gb="> 0",
    signal_delay=">= 1",
    max_requeues=">= 0",
    array_parallelism=">= 1",
)


@dataclass(frozen=True)
class Cluster:
    """The settings of all jobs, and those of single verbs that differ.

    ``flags`` win over both. ``chdir`` is the folder that jobs run in.
    """

    base: Mapping[str, object] = field(default_factory=dict)
    verbs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    flags: Mapping[str, object] = field(default_factory=dict)
    chdir: str = field(default_factory=os.getcwd)

    def of(self, job: Job) -> Settings:
        """What this job is submitted with."""
        verb = str(job.argv[0]) if job.program[-1] == "densessl" and job.argv else ""
        given: dict[str, Any] = {**self.base, **self.verbs.get(verb, {}), **self.flags}
        made = replace(Settings(), **given)
        if made.time and minutes(made.time) * 60 <= made.signal_delay + EARLY:
            raise InputError(
                f"the time limit of '{job.name}' is {understood(made.time)}, and signal_delay "
                f"{made.signal_delay} s before it the job is to stop (SLURM may say so "
                f"{EARLY} s earlier): take a longer time or a smaller signal_delay"
            )
        return made

    def as_dict(self) -> dict:
        """For JSON; :meth:`from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> "Cluster":
        """As :meth:`as_dict` wrote it; InputError where it is something else."""
        try:
            base, verbs, flags = (values[name] for name in ("base", "verbs", "flags"))
            where = "the settings of the last submission"
            return cls(
                _checked(base, where),
                {verb: _checked(part, where) for verb, part in verbs.items()},
                _checked(flags, where),
                values["chdir"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not settings of a submission: {error!r}") from None


def load(flags: Mapping[str, object] | None = None, file: Path | None = None) -> Cluster:
    """The settings of ``file`` (None: the first ``slurm.yaml`` found), with the flags over them.

    ``flags`` are fields of :class:`Settings` by name. Raises InputError for what is wrong.
    """
    file = file or find()
    values = _read(file) if file else {}
    base, verbs = {}, {}
    for key, value in values.items():
        if key in VERBS:
            if not isinstance(value, dict):
                raise InputError(f"{key} in {file} is a section of settings, not '{value}'")
            verbs[key] = _checked(value, f"{key} of {file}")
        else:
            base[key] = value
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    return Cluster(_checked(base, str(file), VERBS), verbs, _checked(given, "the command line"))


def find() -> Path | None:
    """``slurm.yaml`` of the working folder, else of the user's config folder, else None."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    candidates = (Path(FILE), home / "densessl" / FILE)
    return next((candidate.absolute() for candidate in candidates if candidate.is_file()), None)


def _read(file: Path) -> dict:
    # Every value as it is written: YAML would make seconds of 24:00:00.
    values = read_yaml(file, lambda text: yaml.load(text, Loader=yaml.BaseLoader))
    if not isinstance(values or {}, dict):
        raise InputError(f"{file} must hold keys (partition, time, …), not '{values}'")
    return values or {}


def _checked(values: Mapping, where: str, sections: tuple[str, ...] = ()) -> dict[str, object]:
    """The values with the types of their fields; InputError names what is wrong, and where."""
    lines = {key: values[key] for key in ("modules", "setup") if key in values}
    for key, value in lines.items():
        lines[key] = value.splitlines() if isinstance(value, str) else value
    texts = {key: _in_one_line(key, values[key], where) for key in values if key not in lines}
    checked = options.read({**texts, **lines}, OPTIONS, where, *sections)
    for key in lines:
        filled = [each for each in checked[key] if str(each).strip()]
        checked[key] = tuple(_line(key, each, where) for each in filled)
    if checked.get("time"):
        minutes(checked["time"], where)
    for key in ("container", "python"):
        try:
            shlex.split(checked.get(key, ""))
        except ValueError as error:
            raise InputError(f"{key} in {where} is '{checked[key]}': {error}") from None
    if "extra" in checked:
        checked["extra"] = _extra(checked["extra"], where)
    return checked


def _line(key: str, value, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{key} in {where} has '{value}'; it must be a list of lines")
    if key == "modules" and not re.fullmatch(r"\S+", value):
        raise InputError(f"'{one_line(value)}' in modules of {where} is not the name of a module")
    return value


def _extra(value: Mapping, where: str) -> dict[str, str | bool]:
    checked: dict[str, str | bool] = {}
    for key, given in value.items():
        name = key.lstrip("-").replace("_", "-")
        if name in OWN:
            raise InputError(f"extra in {where} must not hold '{key}', which is set elsewhere")
        if not EXTRA.fullmatch(name):
            raise InputError(
                f"extra in {where} holds '{one_line(key)}', which is no long option of sbatch; "
                "allowed: small letters, digits and '-', as in mail-type"
            )
        if isinstance(given, dict | list):
            raise InputError(f"{key} of extra in {where} is {given}; it must be one value")
        given = _in_one_line(f"{key} of extra", given, where)
        if str(given).lower() != "false":
            checked[name] = True if str(given).lower() in ("", "true") else str(given)
    return checked


def _in_one_line(key: str, value, where: str):
    """Text without the spaces around it, as a block of YAML has them; InputError where it could end
    a line of a batch file."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if one_line(value) != value:
        raise InputError(
            f"{key} in {where} is '{one_line(value)}'; allowed: one line without control characters"
        )
    return value


def minutes(time: str, where: str = "--time") -> int:
    """A time limit as SLURM writes it, in minutes (seconds are rounded up).

    Allowed: ``MINUTES``, ``MINUTES:SECONDS``, ``HOURS:MINUTES:SECONDS``, ``DAYS-HOURS``,
    ``DAYS-HOURS:MINUTES`` and ``DAYS-HOURS:MINUTES:SECONDS``. Raises InputError.
    """
    found = TIME.fullmatch(str(time).strip())
    parts = [int(part) for part in found["clock"].split(":")] if found else []
    if found and found["days"] is not None:
        hours, minute, second = (*parts, 0, 0)[:3]
        seconds = int(found["days"]) * 86400 + hours * 3600 + minute * 60 + second
    else:
        hours, minute, second = {1: (0, *parts, 0), 2: (0, *parts), 3: parts}.get(
            len(parts), (0, 0, 0)
        )
        seconds = hours * 3600 + minute * 60 + second
    if not seconds:
        raise InputError(
            f"the time limit '{time}' in {where} is not one; allowed, as SLURM writes it: MINUTES, "
            "MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS, DAYS-HOURS:MINUTES, "
            "DAYS-HOURS:MINUTES:SECONDS"
        )
    return -(-seconds // 60)


def understood(time: str) -> str:
    """The time limit in words, with a hint where it is easily misread.

    Example: ``understood("24:00")`` is "24 minutes (24:00 is MINUTES:SECONDS to SLURM; 24 hours
    are 24:00:00)".
    """
    hours, rest = divmod(minutes(time), 60)
    days, hours = divmod(hours, 24)
    parts = {"day": days, "hour": hours, "minute": rest}
    text = ", ".join(f"{n} {unit}{'s' * (n != 1)}" for unit, n in parts.items() if n)
    if re.fullmatch(r"\d+:\d+", time):
        first = time.split(":")[0]
        text += f" ({time} is MINUTES:SECONDS to SLURM; {first} hours are {time}:00)"
    return text
