"""Which rows of a table cannot be told from a start without pretraining, and what stands there.

The unit is the pretraining. A row of several is tested by Welch's t test of their means against the
control's trials, each of which starts from a network of its own; a row of one by Student's, which
asks whether its mean may be that of one more such network.
"""

from collections.abc import Iterable, Sequence

from .model import Cell, Chance, Column, Row, Table
from .t_test import between, holm, p_value

LEVEL = 0.05
SHOWN = 8  # rows that a footnote names
ENOUGH = 3  # trials of a control; two leave one degree of freedom


def against_controls(table: Table) -> None:
    """Test every row's cells against the table's controls, and hide what is not distinguishable.

    Of two controls the one with the greater p counts. Each column is corrected for its rows by
    Holm. Where the p of a task's first column is above LEVEL, the row's numbers of that task are
    hidden, and that cell says so. Adds what is to be said to the notes.
    """
    controls = [row for row in table.rows if row.control]
    if not controls or all(row.control or not row.measured for row in table.rows):
        return
    for column in table.columns:
        _test(table.rows, controls, column.key)
    hidden = False
    for columns in _tasks(table.columns):
        for row in table.rows:
            hidden |= _hide(row, columns)
    table.notes += _notes(table, controls, hidden)


def _test(rows: Iterable[Row], controls: Sequence[Row], key: str) -> None:
    found: list[tuple[Cell, str, float]] = []
    for row in rows:
        cell = row.cells.get(key)
        if row.control or cell is None or not cell.units:
            continue
        against = {
            each.control: p
            for each in controls
            if key in each.cells and (p := _p(each.cells[key], cell)) is not None
        }
        if against:
            control = max(against, key=lambda name: against[name])
            found.append((cell, control, against[control]))
    corrected = holm([p for *_, p in found])
    for (cell, control, p), after in zip(found, corrected, strict=True):
        cell.chance = Chance(control, p, after)


def _p(control: Cell, cell: Cell) -> float | None:
    return between(control.units, cell.units).p_shown if control.units else None


def _tasks(columns: Iterable[Column]) -> list[list[Column]]:
    found: dict[tuple, list[Column]] = {}
    for column in columns:
        task = column.metric.partition("/")[0]
        found.setdefault((column.protocol, column.variant, task), []).append(column)
    return list(found.values())


def _hide(row: Row, columns: Sequence[Column]) -> bool:
    main = row.cells.get(columns[0].key)
    if main is None or main.chance is None or main.chance.holm <= LEVEL:
        return False
    for column in columns:
        if cell := row.cells.get(column.key):
            cell.hidden = True
    p = p_value(main.chance.holm)
    main.instead = f"not distinguishable from {main.chance.control} ({p})"
    return True


def _distinguishable(table: Table) -> list[str]:
    """The rows that differ from the controls in a task's first column, and with which p."""
    firsts = [columns[0] for columns in _tasks(table.columns)]
    return [
        f"{row.label} ({column.metric.rpartition('/')[2]}, {p_value(cell.chance.holm)} "
        f"against {cell.chance.control})"
        for row in table.rows
        for column in firsts
        if (cell := row.cells.get(column.key)) and cell.chance and not cell.hidden
    ]


def _notes(table: Table, controls: Sequence[Row], hidden: bool) -> list[str]:
    names = " and ".join(dict.fromkeys(row.control for row in controls))
    cells = [cell for row in table.rows if not row.control for cell in row.cells.values()]
    if not any(cell.chance for cell in cells):
        return [
            f"No row could be tested against {names}: that takes several trials of it (or several "
            "pretrainings), as one has no spread."
        ]
    lines = [
        f"Tested against {names}, of which each trial starts from a network of its own: a row of "
        "several pretrainings by Welch's t test of their means, a row of one by Student's, as if "
        "it were one more such network; p by Holm's correction for the rows, level 5 %."
    ]
    if distinguishable := _distinguishable(table):
        some = "; ".join(distinguishable[:SHOWN]) + ("; …" if len(distinguishable) > SHOWN else "")
        lines.append(f"Distinguishable, with the greater p of its controls: {some}.")
    if hidden:
        lines.append("The numbers of rows that are not distinguishable are in the CSV form alone.")
        counts = [len(cell.units) for row in controls for cell in row.cells.values()]
        fewest = min(filter(None, counts))
        if fewest < ENOUGH:
            lines.append(
                f"With {fewest} trials of a control the tests see only large differences; five see "
                "more ('densessl transfer random … --trials 5')."
            )
    return lines
