"""Tables of single classes: a row a class, a column a model, from the same records."""

from collections.abc import Sequence
from dataclasses import replace

from ..results import Record, class_of
from . import from_records
from .model import Cell, Column, Row, Table


def build(records: Sequence[Record], baseline: str | None = None) -> list[Table]:
    """As :func:`from_records.build`, with a column for each class; models are the rows.

    Only tables whose records have values of single classes; best and second are of one class.
    """
    tables = from_records.build(records, baseline=baseline, choose=_of_classes, tested=False)
    return [replace(each, title=f"{each.title}, by class") for each in tables if each.columns]


def turned(table: Table) -> Table:
    """A table of :func:`build` with its classes as rows and its models as columns.

    The columns are grouped by metric (``bbox/AP``, ``segm/AP``) where there are several.
    """
    of_classes = [(column, found) for column in table.columns if (found := class_of(column.metric))]
    kinds = list(dict.fromkeys(kind for _, (kind, _) in of_classes))
    columns = [
        Column(
            key=_key(kind, place),
            head=row.label,
            group=_group(kind) if len(kinds) > 1 else "",
            protocol=table.columns[0].protocol,
            variant=table.columns[0].variant,
            metric=kind,
        )
        for kind in kinds
        for place, row in enumerate(table.rows)
    ]
    most = max((row.seeds for row in table.rows), key=len)
    cells: dict[str, dict[str, Cell]] = {}  # by class
    for column, (kind, name) in of_classes:
        own = cells.setdefault(name, {})
        for place, row in enumerate(table.rows):
            if column.key in row.cells:
                own[_key(kind, place)] = row.cells[column.key]
    rows = [Row(name, seeds=most, cells=own) for name, own in cells.items()]
    return replace(table, columns=columns, rows=rows, first="class", facts=(), baselines=[""])


def _of_classes(names: Sequence[str]) -> list[str]:
    return [name for name in names if class_of(name)]


def _key(kind: str, place: int) -> str:
    return f"{kind} {place}"


def _group(kind: str) -> str:
    task, _, metric = kind.partition("/")
    return f"{from_records.GROUPS.get(task, task)} {metric}"
