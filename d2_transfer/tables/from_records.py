"""Tables of records alone: one for every protocol, variant, and full or miniature."""

from collections import Counter
from collections.abc import Callable, Sequence

from densessl.core.errors import InputError, unknown

from ..results import Record, class_of
from .controls import against_controls
from .experiments import (
    cell,
    detectable,
    difference,
    levels,
    number,
    remarks,
    require_different_seeds,
    require_one_experiment,
    undefined,
    which,
)
from .model import Column, Row, Table, compare_with_baseline, mark_best
from .pretrainings import by_recipe, control_of, seeds_of

# What papers print, in their order; a record may hold more (AP of small objects, of one class, …).
GROUPS = {
    "panoptic_seg": "Panoptic Seg.",
    "bbox": "Object Det.",
    "segm": "Instance Seg.",
    "keypoints": "Keypoint",
}
TASKS = (*GROUPS, "sem_seg", "knn", "linear", "cls")
PRINTED = ("PQ", "SQ", "RQ", "PQ_th", "PQ_st", "AP", "AP50", "AP75", "mIoU", "top1", "top5")
BASELINES_FIRST = ("random", "random_bn", "supervised")
SHOWN = {"random_bn": "random, data's batch norm"}  # names of methods that are no words
MINIATURE = "A miniature: not comparable with published numbers."


def printed(names: Sequence[str]) -> list[str]:
    """Of metrics those that papers print, in their order; where none is such, all means."""

    def place(name: str) -> tuple:
        task, _, metric = name.partition("/")
        return _place(task, TASKS), task, _place(metric, PRINTED), metric

    known = [name for name in names if name.partition("/")[2] in PRINTED]
    return sorted(known or (name for name in names if not class_of(name)), key=place)


def build(
    records: Sequence[Record],
    metrics: Sequence[str] = (),
    baseline: str | None = None,
    choose: Callable[[Sequence[str]], list[str]] = printed,
    tested: bool = True,
) -> list[Table]:
    """One table for every (protocol, variant, full or miniature) among the records.

    ``metrics`` names the columns; without any, ``choose`` takes them from those that a table's
    records have. ``baseline`` is a method (or a row's label) whose means the others are compared
    with. ``tested``: whether rows that are not distinguishable from a control say so in place of
    their numbers. Raises InputError for trials of one cell whose configs differ, for a seed that
    occurs twice in a cell, for an unknown metric and for an unknown baseline.
    """
    known = {name for record in records for name in record.metrics}
    for name in metrics:
        if name not in known:
            raise unknown("metric", name, known, "--metric")
    found: dict[tuple, list[Record]] = {}
    for record in records:
        found.setdefault((record.protocol, record.variant, record.mini), []).append(record)
    tables = [
        _table(protocol, variant, mini, group, metrics, choose)
        for (protocol, variant, mini), group in found.items()
    ]
    if baseline is not None:
        _compare(tables, baseline)
    for table in tables:
        if tested:
            against_controls(table)
        mark_best(table)
        table.notes = _notes(table) + table.notes
    return tables


def _table(
    protocol: str, variant: str, mini: bool, records: list[Record], metrics, choose
) -> Table:
    models = by_recipe(records)
    for trials in models:
        require_one_experiment(trials)
        require_different_seeds(trials)
    known = dict.fromkeys(name for record in records for name in record.metrics)
    names = list(dict.fromkeys(metrics)) or choose(list(known))
    grouped = len({_task(name) for name in names}) > 1
    columns = [
        Column(name, *_heads(name, grouped), protocol, variant, metric=name) for name in names
    ]
    rows_of = Counter(trials[0].method for trials in models)
    rows = [_row(trials, names, rows_of) for trials in models]
    rows.sort(key=lambda row: _place(row.method, BASELINES_FIRST))  # stable: else as they came
    title = f"{protocol}{f', variant {variant}' if variant else ''}{' (miniature)' * mini}"
    # as papers print; a miniature's numbers are mostly below 1
    table = Table(title, columns, rows, mini=mini, decimals=2 if mini else 1)
    table.facts = tuple(name for name in ("data", "epochs") if any(r.facts[name] for r in rows))
    if different := difference([trials[0] for trials in models]):
        table.notes.append(f"The rows were not fine-tuned under one config: {different}.")
    return table


def _task(name: str) -> str:
    return name.partition("/")[0]


def _heads(name: str, grouped: bool) -> tuple[str, str]:
    """A column's head and its group: none where all metrics are of one task."""
    task, _, metric = name.partition("/")
    return metric, GROUPS.get(task, task) if grouped else ""


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _row(trials: list[Record], metrics: list[str], rows_of: Counter[str]) -> Row:
    """The trials of one recipe; its label tells it from others where two share the method.

    ``rows_of``: how many rows each method has.
    """
    first = trials[0]
    shown = SHOWN.get(first.method, first.method)
    alike = rows_of[first.method] > 1
    cells = {name: found for name in metrics if (found := cell(trials, name))}
    data, epochs = str(first.pretrain.get("dataset") or ""), number(first.pretrain.get("epochs"))
    return Row(
        label=f"{shown} [{which(trials)}]" if alike else shown,
        method=first.method,
        data=data,
        epochs=epochs,
        facts={"data": data, "epochs": epochs},
        seeds=sorted({trial.seed for trial in trials}),
        pretrained=seeds_of(trials),
        control=control_of(first),
        cells=cells,
        notes=remarks(trials),
    )


def _compare(tables: list[Table], baseline: str) -> None:
    rows = [row for table in tables for row in table.rows]
    if all(baseline not in (row.method, row.label) for row in rows):
        raise unknown("baseline", baseline, {row.method for row in rows}, "--baseline")
    for table in tables:
        found = [row for row in table.rows if baseline in (row.method, row.label)]
        if len(found) > 1:
            labels = ", ".join(f"'{row.label}'" for row in found)
            raise InputError(f"--baseline {baseline} is more than one row: name one of {labels}")
        if not found:
            table.notes.append(f"No trials of the baseline '{baseline}' here.")
            continue
        table.baselines = [found[0].label]
        compare_with_baseline(table.rows, found[0])


def _notes(table: Table) -> list[str]:
    """What stands under a table: what is averaged, what is compared, what must not be."""
    lines = [MINIATURE] if table.mini else []
    tasks = sorted({_task(column.metric) for column in table.columns} - {""})
    task = f"{tasks[0]}; " if len(tasks) == 1 else ""
    first, *others = levels(table.rows, table.nested)
    lines += [f"{task}{first}", *others, *detectable(table)]
    if table.baselines[0]:
        lines.append(f"In brackets: over {table.baselines[0]}.")
    if table.columns and table.columns[0].variant:
        lines.append("Variants of a protocol give other numbers for the same weights.")
    return lines + undefined(table.rows)
