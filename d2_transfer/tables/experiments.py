"""Which records are trials of one experiment, and what may not be averaged."""

import math
import statistics
from collections.abc import Iterable, Sequence

from densessl.core.errors import InputError

from ..results import Record, config_of
from .model import Cell, Row, Table
from .power import smallest_difference
from .pretrainings import control_of, pretrainings, values_of
from .spread import mean_and_deviation, within_deviation

FINE_TUNING_ALONE = (
    "That deviation is of fine-tuning alone: it says nothing of another pretraining, and so "
    "nothing of the methods."
)


def cell(trials: Sequence[Record], metric: str) -> Cell | None:
    """A row's numbers of one metric over those that have a number there; None if none has it.

    Of several pretrainings: mean and deviation over the pretrainings of their fine-tunings' means.
    """
    if all(metric not in trial.metrics for trial in trials):
        return None
    values = values_of(trials, metric)
    if not values:
        return Cell(math.nan, math.nan, 0)
    means = tuple(map(statistics.fmean, values))
    if control_of(trials[0]):
        return Cell(*mean_and_deviation(means), len(means), units=means)
    counts = tuple(map(len, values))
    over = means if len(means) > 1 else values[0]
    within = within_deviation(values)
    return Cell(
        *mean_and_deviation(over), len(over), units=means, fine_tunings=counts, std_within=within
    )


def remarks(trials: Sequence[Record]) -> tuple[str, ...]:
    """Footnotes of a row: what the records of a model say of how they came to be."""
    seeds = sorted({trial.seed for trial in trials if trial.evaluated})
    remarks = [f"trained models evaluated by --eval-only (seeds {span(seeds)})"] if seeds else []
    return (*remarks, *_changes(trials[0]))


def levels(rows: Sequence[Row], nested: bool) -> list[str]:
    """What the means and deviations of rows with trials are over, and what they say nothing of."""
    seeds = spans({row.label: row.seeds for row in rows})
    if nested:
        pretrained = spans({row.label: row.pretrained for row in rows if row.pretrained})
        return [
            "mean over pretrainings of the mean over their fine-tunings ± standard deviation "
            "(ddof 1) between the pretrainings' means / between fine-tunings of one pretraining "
            f"(pooled); n: pretrainings × fine-tunings (seeds of pretraining {pretrained}; of "
            f"fine-tuning {seeds}); per cent.",
            *_single(rows),
        ]
    if any(len(row.seeds) > 1 for row in rows):
        tuned = any(len(row.seeds) > 1 and not row.control for row in rows)
        over = "fine-tunings of one pretrained model" if tuned else "random networks, one a trial"
        line = f"mean ± standard deviation (ddof 1) over n {over} (seeds {seeds}); per cent."
        return [line, FINE_TUNING_ALONE] if tuned else [line]
    return [f"one fine-tuning a row (seed {seeds}); per cent."]


def _single(rows: Sequence[Row]) -> list[str]:
    """What a row of one pretraining does not tell, beside rows of several."""
    names = [
        row.label
        for row in rows
        if not row.control and not any(cell.of_several for cell in row.cells.values())
    ]
    if not names:
        return []
    return [f"Of one pretraining alone, and so of no method: {', '.join(names)}."]


def detectable(table: Table) -> list[str]:
    """The least difference that the table's pretrainings can show, by its first metric."""
    column = table.columns[0] if table.columns else None
    samples = [
        cell.units
        for row in table.rows
        if column and (cell := row.cells.get(column.key)) and cell.of_several
    ]
    deviation = within_deviation(samples)
    if column is None or not deviation > 0:  # nor NaN
        return []
    n = min(map(len, samples))
    least = smallest_difference(n, n, deviation)
    return [
        f"With {n} pretrainings each a difference below {least:.{table.decimals}f} {column.head} "
        f"cannot be seen (80 % power, two-sided 5 %, pooled deviation {deviation:.2f} between "
        "pretrainings)."
    ]


def undefined(rows: Iterable[Row]) -> list[str]:
    """What stands under a table with a cell that no trial has a number for."""
    if all(cell.n for row in rows for cell in row.cells.values()):
        return []
    return ["– among our numbers: undefined in every trial, as the data leave nothing to measure."]


def short_hash(record: Record) -> str:
    """What tells two models of one name apart: the weights' hash, or where they are."""
    return record.weights["sha256"][:8] or record.weights["path"]


def which(trials: Sequence[Record]) -> str:
    """What tells two rows of one name apart: :func:`short_hash`, or the recipe of several."""
    if len(pretrainings(trials)) > 1 and (recipe := trials[0].pretrain.get("recipe")):
        return f"recipe {str(recipe)[:8]}"
    return short_hash(trials[0])


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
    """Raise InputError, with both folders, for a seed that occurs twice in one pretraining."""
    control = trials and control_of(trials[0])
    for each in [trials] if control else pretrainings(trials):
        _require_different_seeds(each)


def _require_different_seeds(trials: Sequence[Record]) -> None:
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
    where = f" ({first.folder} and {other.folder}{_versions(first, other)})"
    ours, theirs = config_of(first), config_of(other)
    if ours is None or theirs is None:
        return f"their config hashes differ, and a config.yaml is missing to say where{where}"
    missing = "(absent)"
    keys = [
        f"{key} is {ours.get(key, missing)} and {theirs.get(key, missing)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, missing) != theirs.get(key, missing)
    ]
    if not keys:
        return (
            f"their config hashes differ, but the config.yaml files agree: one was changed{where}"
        )
    more = f", and {len(keys) - 6} more keys" if len(keys) > 6 else ""
    return "; ".join(keys[:6]) + more + where


def _versions(*records: Record) -> str:
    """Both versions of Detectron2 where they differ."""
    found = [record.versions.get("detectron2") for record in records]
    return f"; Detectron2 {' and '.join(map(str, found))}" if len(set(found)) > 1 else ""


def span(seeds: list[int]) -> str:
    """``1–5``, or the seeds one by one."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))


def counted(fine_tunings: Sequence[int]) -> str:
    """Of how many pretrainings and fine-tunings: ``3 × 5``, or ``5 + 5 + 4``."""
    if len(set(fine_tunings)) == 1:
        return f"{len(fine_tunings)} × {fine_tunings[0]}"
    return " + ".join(map(str, fine_tunings))


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
