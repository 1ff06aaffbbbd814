"""What a report is made of: the runs, records, pictures and commands below a folder."""

import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densessl.core import files, options
from densessl.core.command import MARK
from densessl.core.errors import InputError
from densessl.core.files import walk
from densessl.core.text import read_mapping

from ..plots import runs

METRICS, CONFIG, LOG, GRAPH = runs.FILE, "config.yaml", "log*.txt", "graph.json"
SCENES = "densessl_scenes.json"  # in the folder of a data set
PICTURE = 2_000_000  # bytes; larger ones would make the page slow
PICTURES = 24


@dataclass
class Pretraining:
    """A run folder of ``densessl pretrain``: its options, and by step what it logged."""

    folder: Path
    config: dict[str, Any]
    points: dict[int, dict[str, float]] = field(default_factory=dict)
    unreadable_lines: int = 0

    @property
    def method(self) -> str:
        return str(self.option("METHOD.NAME", "?"))

    @property
    def step(self) -> int:
        """The last one that was logged."""
        return max(self.points, default=0)

    @property
    def last(self) -> dict[str, float]:
        return self.points.get(self.step, {})

    def option(self, name: str, default: Any = None) -> Any:
        """An option by its dotted name."""
        return options.flat(self.config).get(name, default)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of a key; where it is absent or no number, they are left out."""
        pairs = [
            (step, values[key])
            for step, values in sorted(self.points.items())
            if math.isfinite(values.get(key, math.nan))
        ]
        return [step for step, _ in pairs], [value for _, value in pairs]


@dataclass
class Collected:
    """All that lies below the folders of a report."""

    pretrainings: list[Pretraining] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    left_out: int = 0  # pictures beyond the limits
    commands: list[str] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)  # of graphs: name and command

    def as_typed(self) -> list[str]:
        """The commands of the graphs, or where there is none those of the logs."""
        graph = [shlex.join(["densessl", *job["argv"]]) for job in self.jobs]
        return graph or self.commands


def find(folders: list[Path]) -> Collected:
    """Look through the folders, each file once; damaged files of others are passed over."""
    found = Collected()
    seen: set[Path] = set()
    for path in (path for folder in folders for path in files_below(folder)):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        if path.name == METRICS and (run := _pretraining(path)):
            found.pretrainings.append(run)
        elif path.name == GRAPH:
            found.jobs += _jobs(path)
        elif path.match(LOG) and (path.parent / CONFIG).is_file():
            found.commands += [each for each in _commands(path) if each not in found.commands]
        elif path.suffix.lower() in (".png", ".jpg") and "pictures" in path.parts:
            fits = path.stat().st_size <= PICTURE and len(found.pictures) < PICTURES
            found.pictures += [path] if fits else []
            found.left_out += not fits
    return found


def files_below(folder: Path) -> list[Path]:
    """The files below a folder in the order of their paths, without those of data sets."""
    found: list[Path] = []
    for parent, folders, names in walk(folder):
        if parent != str(folder) and SCENES in names:
            folders.clear()
        else:
            found += [path for name in names if (path := Path(parent, name)).is_file()]
    return sorted(found)


def _pretraining(path: Path) -> Pretraining | None:
    """The run whose metrics these are, if it is a pretraining."""
    try:
        config = read_mapping(path.parent / CONFIG, "a config")
    except InputError:
        return None
    if not isinstance(config.get("METHOD"), dict):
        return None
    try:
        run = runs.read(path)
    except InputError:  # nothing was logged yet
        return Pretraining(path.parent, config)
    bad = sum(map(len, run.unreadable.values()))
    return Pretraining(path.parent, config, run.trials[1], bad)


def _commands(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    parts = (line.partition(f" INFO {MARK}") for line in lines)
    return list(dict.fromkeys(after for _, found, after in parts if found))


def _jobs(path: Path) -> list[dict[str, Any]]:
    """The jobs of a graph (slurm.state): name, and argv as the command of a person."""
    try:
        jobs = files.read_json(path)["jobs"]
        return [{"name": str(job["name"]), "argv": [*map(str, job["argv"])]} for job in jobs]
    except (ValueError, KeyError, TypeError):
        return []
