"""Records to tables: which trials make one cell, and what may not be averaged."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from console.errors import InputError, unknown

from ..results import Record, config_of

# What papers print, in their order; a record may hold more (AP of small objects, of one class, …).
TASKS = ("bbox", "segm", "keypoints", "sem_seg", "knn", "linear")
PRINTED = ("AP", "AP50", "AP75", "mIoU", "top1", "top5")
BASELINES_FIRST = ("random", "supervised")


@dataclass
class Cell:
    """Mean and sample standard deviation (NaN for one trial) of ``n`` trials of one metric."""

    mean: float
    std: float
    n: int
    delta: float | None = None  # over the baseline's mean
    best: bool = False


@dataclass
class Row:
    """One pretrained model: the trials of its fine-tuning under one protocol."""

    label: str
    method: str
    data: str
    epochs: str
    seeds: list[int]
    cells: dict[str, Cell]  # by metric; a metric that no trial has is absent


@dataclass
class Table:
    """One protocol (and variant, full or miniature): rows of methods, columns of metrics."""

    protocol: str
    variant: str
    mini: bool
    metrics: list[str]
    rows: list[Row]
    baseline: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        variant = f", variant {self.variant}" if self.variant else ""
        return f"{self.protocol}{variant}{' (miniature)' if self.mini else ''}"

    @property
    def decimals(self) -> int:
        """As papers print; a miniature's numbers are mostly below 1."""
        return 2 if self.mini else 1


def build(
    records: Sequence[Record], metrics: Sequence[str] = (), baseline: str | None = None
) -> list[Table]:
    """One table for every (protocol, variant, full or miniature) among the records.

    ``metrics`` names the columns (default: those that papers print). ``baseline`` is a method (or
    a row's label) whose means the others are compared with. Raises InputError for trials of one
    cell whose configs differ, for a seed that occurs twice in a cell, for an unknown metric and for
    an unknown baseline.
    """
    _require_known_metrics(records, metrics)
    by_table: dict[tuple, list[Record]] = {}
    for record in records:
        by_table.setdefault((record.protocol, record.variant, record.mini), []).append(record)
    tables = [_table(*key, group, metrics) for key, group in by_table.items()]
    if baseline is not None:
        _compare(tables, baseline)
    for table in tables:
        _mark_best(table)
    return tables


def _require_known_metrics(records: Sequence[Record], metrics: Sequence[str]) -> None:
    known = {name for record in records for name in record.metrics}
    for name in metrics:
        if name not in known:
            raise unknown("metric", name, known, "--metric")


def _table(protocol: str, variant: str, mini: bool, records: list[Record], metrics) -> Table:
    by_model: dict[tuple, list[Record]] = {}
    for record in records:
        facts = json.dumps(record.pretrain, sort_keys=True)
        model = (record.method, record.weights["sha256"], facts)
        by_model.setdefault(model, []).append(record)
    for trials in by_model.values():
        _require_one_experiment(trials)
        _require_different_seeds(trials)
    chosen = list(metrics) or _printed({name for record in records for name in record.metrics})
    rows = [_row(trials, chosen, _label(trials[0], by_model)) for trials in by_model.values()]
    rows.sort(key=lambda row: _place(row.method, BASELINES_FIRST))  # stable: else as they came
    table = Table(protocol, variant, mini, chosen, rows)
    if difference := _difference([trials[0] for trials in by_model.values()]):
        table.notes.append(f"The rows were not fine-tuned under one config: {difference}.")
    return table


def _printed(names: set[str]) -> list[str]:
    """The metrics that papers print, in their order; all of them where none is such."""

    def place(name: str) -> tuple:
        task, _, metric = name.rpartition("/")
        return _place(task, TASKS), task, _place(metric, PRINTED), metric

    known = {name for name in names if name.rpartition("/")[2] in PRINTED}
    return sorted(known or names, key=place)


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _label(record: Record, models: dict[tuple, list[Record]]) -> str:
    """The method's name; with the weights' sum where two models of the table share the name."""
    if sum(method == record.method for method, _, _ in models) == 1:
        return record.method
    return f"{record.method} [{record.weights['sha256'][:8] or record.weights['path']}]"


def _row(trials: list[Record], metrics: list[str], label: str) -> Row:
    cells = {}
    for name in metrics:
        values = [trial.metrics[name] for trial in trials if name in trial.metrics]
        values = [value for value in values if not math.isnan(value)]
        if values:
            std = statistics.stdev(values) if len(values) > 1 else math.nan
            cells[name] = Cell(statistics.fmean(values), std, len(values))
    facts = trials[0].pretrain
    return Row(
        label=label,
        method=trials[0].method,
        data=str(facts.get("dataset") or ""),
        epochs=_number(facts.get("epochs")),
        seeds=sorted(trial.seed for trial in trials),
        cells=cells,
    )


def _number(value) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value or "")


def _require_one_experiment(trials: list[Record]) -> None:
    if difference := _difference(trials):
        first = trials[0]
        raise InputError(
            f"{first.method} under {first.protocol}: the trials were not run with one config, so "
            f"they have no average: {difference}. Give the table the folders of one config."
        )


def _difference(trials: list[Record]) -> str:
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


def _require_different_seeds(trials: list[Record]) -> None:
    seen: dict[int, Record] = {}
    for trial in trials:
        if trial.seed in seen:
            raise InputError(
                f"{trial.method} under {trial.protocol}: seed {trial.seed} occurs twice, in "
                f"{seen[trial.seed].folder} and {trial.folder}; a trial counts once"
            )
        seen[trial.seed] = trial


def _compare(tables: list[Table], baseline: str) -> None:
    names = {name for table in tables for row in table.rows for name in (row.method, row.label)}
    if baseline not in names:
        raise unknown(
            "baseline", baseline, {r.method for t in tables for r in t.rows}, "--baseline"
        )
    for table in tables:
        found = [row for row in table.rows if baseline in (row.method, row.label)]
        if len(found) > 1:
            labels = ", ".join(f"'{row.label}'" for row in found)
            raise InputError(f"--baseline {baseline} is more than one row: name one of {labels}")
        if not found:
            table.notes.append(f"No trials of the baseline '{baseline}' here.")
            continue
        table.baseline = found[0].label
        for row in table.rows:
            for name, cell in row.cells.items():
                if row is not found[0] and name in found[0].cells:
                    cell.delta = cell.mean - found[0].cells[name].mean


def _mark_best(table: Table) -> None:
    """Mark the highest mean of every column, ties as printed included; equal rows have no best."""
    for name in table.metrics:
        cells = [row.cells[name] for row in table.rows if name in row.cells]
        printed = [round(cell.mean, table.decimals) for cell in cells]
        for cell, mean in zip(cells, printed, strict=True):
            cell.best = mean == max(printed) > min(printed)
