"""Which records are trials of one experiment, and what may not be averaged."""

import json
import math
from collections.abc import Iterable, Sequence

from console.errors import InputError

from ..results import Record, config_of
from .model import Cell, Row
from .spread import mean_and_deviation


def by_model(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each pretrained model (method, weights and their facts), as they came."""
    found: dict[tuple, list[Record]] = {}
    for record in records:
        facts = json.dumps(record.pretrain, sort_keys=True)
        key = (record.method, record.weights["sha256"], facts)
        found.setdefault(key, []).append(record)
    return list(found.values())


def cell(trials: Sequence[Record], metric: str) -> Cell | None:
    """Mean, deviation and n of the trials that have a number there; None if none has the metric."""
    values = [trial.metrics[metric] for trial in trials if metric in trial.metrics]
    if not values:
        return None
    values = [value for value in values if value == value]  # not NaN
    if not values:
        return Cell(math.nan, math.nan, 0)
    return Cell(*mean_and_deviation(values), len(values))


def remarks(trials: Sequence[Record]) -> tuple[str, ...]:
    """Footnotes of a row: what the records of a model say of how they came to be."""
    seeds = sorted(trial.seed for trial in trials if trial.evaluated)
    said = [f"trained models evaluated by --eval-only (seeds {span(seeds)})"] if seeds else []
    return (*said, *_changes(trials[0]))


def undefined(rows: Iterable[Row]) -> list[str]:
    """What stands under a table with a cell that no trial has a number for."""
    if all(cell.n for row in rows for cell in row.cells.values()):
        return []
    return ["– among our numbers: undefined in every trial, as the data leave nothing to measure."]


def short_sum(record: Record) -> str:
    """What tells two models of one name apart: the weights' sum, or where they are."""
    return record.weights["sha256"][:8] or record.weights["path"]


def number(value: object) -> str:
    """A fact as text: 200.0 is 200."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    return str(value or "")


def require_one_experiment(trials: Sequence[Record]) -> None:
    """Raise InputError, with what differs, for trials that were not run with one config."""
    if different := difference(trials):
        first = trials[0]
        raise InputError(
            f"{first.method} under {first.protocol}: the trials were not run with one config, so "
            f"they have no average: {different}. Give the table the folders of one config."
        )


def require_different_seeds(trials: Sequence[Record]) -> None:
    """Raise InputError, with both folders, for a seed that occurs twice."""
    seen: dict[int, Record] = {}
    for trial in trials:
        if trial.seed in seen:
            raise InputError(
                f"{trial.method} under {trial.protocol}: seed {trial.seed} occurs twice, in "
                f"{seen[trial.seed].folder} and {trial.folder}; a trial counts once"
                f"{_is_evaluation(trial, seen[trial.seed])}"
            )
        seen[trial.seed] = trial


def _is_evaluation(*records: Record) -> str:
    folders = [str(record.folder) for record in records if record.evaluated]
    return f", and {' and '.join(folders)} evaluates a trained model again" if folders else ""


def difference(trials: Sequence[Record]) -> str:
    """What differs between the configs of trials: keys with both values; '' when nothing does."""
    first = trials[0]
    other = next((trial for trial in trials if trial.config_sha256 != first.config_sha256), None)
    if other is None:
        return ""
    where = f" ({first.folder} and {other.folder})"
    ours, theirs = config_of(first), config_of(other)
    if ours is None or theirs is None:
        return f"their config sums differ, and a config.yaml is missing to say where{where}"
    missing = "(absent)"
    keys = [
        f"{key} is {ours.get(key, missing)} and {theirs.get(key, missing)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, missing) != theirs.get(key, missing)
    ]
    if not keys:
        return f"their config sums differ, but the config.yaml files agree: one was changed{where}"
    more = f", and {len(keys) - 6} more keys" if len(keys) > 6 else ""
    return "; ".join(keys[:6]) + more + where


def span(seeds: list[int]) -> str:
    """``1–5``, or the seeds one by one."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def spans(seeds: dict[str, list[int]]) -> str:
    """``1–5`` when all rows, named by label, have those seeds, else each row's own."""
    by_label = {label: span(each) for label, each in seeds.items()}
    if len(set(by_label.values())) == 1:
        return next(iter(by_label.values()))
    return "; ".join(f"{label}: {each}" for label, each in by_label.items())


def _changes(record: Record) -> tuple[str, ...]:
    """What ``densessl pretrain --change`` changed while the model was pretrained, in words."""
    lines = []
    for change in record.pretrain.get("changes") or []:
        if isinstance(change, dict) and isinstance(change.get("options"), dict):
            pairs = change["options"].items()
            options = ", ".join(f"{key} {' -> '.join(map(str, pair))}" for key, pair in pairs)
            lines.append(f"changed while it was pretrained, from step {change['step']}: {options}")
    return tuple(lines)
