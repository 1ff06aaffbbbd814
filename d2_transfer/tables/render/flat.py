"""Tables as CSV: a line for each cell, numbers in full precision, text that stays text."""

import csv
import io
import math
import re
from collections.abc import Sequence

from ..model import Cell, Column, Row, Table
from .sheet import clean

# fmt: off
HEADS = (
    "table", "section", "row", "kind", "method", "data", "epochs",
    "protocol", "variant", "metric", "mean", "std", "n", "low_95", "high_95", "over_baseline",
    "published", "published_over_baseline", "suspect", "published_variants",
    "ours_minus_published", "published_within", "notes",
)
# fmt: on
# Where a row is of several pretrainings, or was tested against a start without pretraining.
LEVELS = ("fine_tunings", "std_fine_tuning", "control", "p_control", "p_control_holm")
FORMULA = re.compile("[=+@＝＋－＠-]")  # begins what a spreadsheet would run
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.IGNORECASE)


def render(tables: Sequence[Table]) -> str:
    """All cells of all tables; what is not known is empty, truth is 1 or 0."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    more = any(map(_has_levels, tables))
    writer.writerow((*HEADS, *LEVELS) if more else HEADS)
    for table in tables:
        for row in table.rows:
            for column in table.columns:
                if column.key in row.cells or column.key in row.published:
                    levels = _levels(row.cells.get(column.key)) if more else []
                    writer.writerow([*_values(table, row, column), *levels])
    return stream.getvalue()


def _has_levels(table: Table) -> bool:
    cells = (cell for row in table.rows for cell in row.cells.values())
    return table.nested or any(cell.chance for cell in cells)


def _levels(cell: Cell | None) -> list[str]:
    """How many fine-tunings each pretraining has, their deviation, and the control's test."""
    if cell is None:
        return [""] * len(LEVELS)
    chance = cell.chance
    tested = (chance.p, chance.holm) if chance else (None, None)
    return [
        _text(" + ".join(map(str, cell.fine_tunings))),
        _number(cell.std_within),
        chance.control if chance else "",
        *map(_number, tested),
    ]


def _values(table: Table, row: Row, column: Column) -> list[str]:
    ours, theirs = row.cells.get(column.key), row.published.get(column.key)
    low, high = (ours.interval if ours else None) or (None, None)
    gain, difference, within = (
        (ours.delta, ours.difference, ours.within) if ours else (None, None, None)
    )
    texts = (table.title, table.sections[row.section], row.label)
    kind = "both" if ours and theirs else "measured" if ours else "published"
    return [
        *map(_text, (*texts, kind, row.method, row.data, row.epochs)),
        *map(_text, (column.protocol, column.variant, column.metric)),
        *(map(_number, (ours.mean, ours.std, ours.n)) if ours else [""] * 3),
        *map(_number, (low, high, gain)),
        *(map(_number, (theirs.mean, theirs.delta, theirs.suspect)) if theirs else [""] * 3),
        _text("/".join(theirs.variants if theirs else ())),
        *map(_number, (difference, within)),
        _text(" | ".join((theirs.notes if theirs else ()) + (row.notes if ours else ()))),
    ]


def _text(text: str) -> str:
    """Text of a record or a layout, with an apostrophe before what would be a formula."""
    text = clean(text)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def _number(value: float | bool | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool | int) else repr(value)
