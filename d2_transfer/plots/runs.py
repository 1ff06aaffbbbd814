"""What runs wrote into ``metrics.jsonl``: pretrainings, and fine-tunings with their trials."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densessl.core.errors import InputError

FILE = "metrics.jsonl"
TRIAL = re.compile(r"trial_(\d+)")

Points = dict[int, dict[str, float]]  # by step, each metric written there; NaN: not a number


@dataclass
class LoggedRun:
    """A run by trial; a pretraining has one. ``unreadable``: by file, the numbers of such lines.

    ``path``: its folder, or a file of another name.
    """

    path: Path
    trials: dict[int, Points]
    unreadable: dict[Path, list[int]] = field(default_factory=dict)

    @property
    def metrics(self) -> set[str]:
        """All names that the lines hold, but for the step and the trial."""
        return {
            name for points in self.trials.values() for values in points.values() for name in values
        }

    def series(self, trial: int, metric: str) -> dict[int, float]:
        """A trial's values of a metric by step, in order; NaN where it was not a number."""
        points = self.trials[trial]
        return {step: points[step][metric] for step in sorted(points) if metric in points[step]}


def read(path: str | Path) -> LoggedRun:
    """The run in a folder (its own metrics.jsonl and those of its trials) or in one file.

    Of lines with the same trial and step the last counts, and a run that went back to a checkpoint
    counts from there on anew. Lines that cannot be read are left out and listed. Raises InputError
    where there is no such file, or no line in it that can be read.
    """
    path = Path(path)
    pieces: dict[int, list[list[dict]]] = {}  # of each trial, its lines in each file
    unreadable: dict[Path, list[int]] = {}
    files = _files(path)
    for file in files:
        lines, bad = _lines(file)
        if bad:
            unreadable[file] = bad
        of_file: dict[int, list[dict]] = {}
        for line in _with_gaps(lines):
            of_file.setdefault(line.get("trial", 1), []).append(line)
        for trial, piece in of_file.items():
            pieces.setdefault(trial, []).append(piece)
    if not pieces:
        which = " and ".join(map(str, files))
        why = "no line of it can be read" if unreadable else "it is empty: nothing was logged yet"
        raise InputError(f"{which}: {why}")
    trials = {trial: _joined(pieces[trial]) for trial in sorted(pieces)}
    return LoggedRun(path.parent if path.name == FILE else path, trials, unreadable)


def names(paths: Sequence[Path]) -> list[str]:
    """What to call each run: its folder's name, with as many parents as tell all of them apart.

    Raises InputError for one that is named twice.
    """
    parts = [path.resolve().parts for path in paths]
    for path, own in zip(paths, parts, strict=True):
        if parts.count(own) > 1:
            raise InputError(f"{path} is named twice; a run is drawn once")
    for count in range(1, max(map(len, parts), default=0) + 1):
        short = ["/".join(own[-count:]) for own in parts]
        if len(set(short)) == len(short):
            return short
    return [str(path) for path in paths]


def _files(path: Path) -> list[Path]:
    """The run's files, the folder's own first."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    own = [path / FILE] if (path / FILE).is_file() else []
    trials = [file for file in path.glob(f"trial_*/{FILE}") if TRIAL.fullmatch(file.parent.name)]
    if own or trials:
        return own + sorted(trials, key=lambda file: int(file.parent.name.removeprefix("trial_")))
    below = sorted({_run_of(file) for file in path.rglob(FILE)})
    if not below:
        raise InputError(f"{path}: there is no {FILE}; 'pretrain' and 'transfer' write it")
    more = f" and {len(below) - 4} more" if len(below) > 4 else ""
    some = ", ".join(map(str, below[:4]))
    raise InputError(f"{path} is no run, but holds some; name them: {some}{more}")


def _run_of(file: Path) -> Path:
    return file.parent.parent if TRIAL.fullmatch(file.parent.name) else file.parent


def _lines(file: Path) -> tuple[list[dict], list[int]]:
    """The file's lines in order, and the numbers of those that cannot be read."""
    found, bad = [], []
    with open(file, encoding="utf-8", errors="replace") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                bad.append(number)
                continue
            if (
                isinstance(line, dict)
                and _whole(line.get("iteration"))
                and _whole(line.get("trial", 1))
            ):
                found.append(line)
            else:
                bad.append(number)
    return found, bad


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _with_gaps(lines: list[dict]) -> list[dict]:
    """A line of a pretraining without a loss is of skipped steps: what all others have is a gap.

    But for the line before the first step, which has no loss to miss.
    """
    with_loss = [line.keys() for line in lines if "loss" in line and "trial" not in line]
    always = set.intersection(*map(set, with_loss)) if with_loss else set()
    gap = dict.fromkeys(always, math.nan)
    whole = [line["iteration"] == 0 or "loss" in line or "trial" in line for line in lines]
    return [line if as_is else {**gap, **line} for line, as_is in zip(lines, whole, strict=True)]


def _joined(pieces: Iterable[list[dict]]) -> Points:
    """One trial's lines, of one or several files, by step."""
    points: Points = {}
    last = -1
    for piece in sorted(pieces, key=lambda lines: lines[0]["iteration"]):
        for line in piece:
            step = line["iteration"]
            if step < last:  # the run went back to a checkpoint
                points = {before: values for before, values in points.items() if before < step}
            last = step
            points.setdefault(step, {}).update(_numbers(line))
    return points


def _numbers(line: dict) -> dict[str, float]:
    """The line's numbers; null and infinities are not a number, text is none at all."""
    found = {}
    for name, value in line.items():
        if name in ("iteration", "trial") or isinstance(value, bool):
            continue
        if value is None:
            found[name] = math.nan
        elif isinstance(value, int | float):
            found[name] = _float(value)
    return found


def _float(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        return math.nan
    return number if math.isfinite(number) else math.nan
