"""What all formats print alike: a table as lines of text with marks, nothing escaped yet."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from ..experiments import counted
from ..model import Cell, Column, PublishedCell, Row, Table

NOTHING = "–"
PUBLISHED = "†"
NUMBERS = ("epochs", "n", "Epochs", "Batch")
LETTERS = "abcdefghijklmnoprstuvwxyz"  # those that have a superscript of their own


@dataclass(frozen=True)
class Entry:
    """The text of a cell; ``marks`` are the letters of its footnotes.

    ``over``: words that stand in place of the numbers of so many columns, from this one on, and a
    dash in the others, where a format has no cells over several columns; 0 for a number.
    """

    text: str
    marks: str = ""
    best: bool = False
    second: bool = False
    over: int = 0


@dataclass(frozen=True)
class SheetLine:
    """A printed line. ``kind``: published, measured, or difference (ours − published)."""

    kind: str
    section: int
    label: Entry
    facts: tuple[str, ...]
    cells: tuple[Entry, ...]

    @property
    def drawn(self) -> list[Entry]:
        """The cells less those that words of another stand over."""
        under = {
            place + nth for place, entry in enumerate(self.cells) for nth in range(1, entry.over)
        }
        return [entry for place, entry in enumerate(self.cells) if place not in under]


@dataclass(frozen=True)
class Sheet:
    """A table as text. ``groups``: titles over the columns with their widths; empty without any."""

    title: str
    first: str
    facts: tuple[str, ...]
    heads: tuple[str, ...]
    groups: tuple[tuple[str, int], ...]
    sections: tuple[str, ...]
    lines: tuple[SheetLine, ...]
    notes: tuple[str, ...]
    footnotes: tuple[tuple[str, str], ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns are numbers: the label is not, facts may be."""
        facts = (head in NUMBERS for head in self.facts)
        return (False, *facts, *(True for _ in self.heads))


def sheet(table: Table) -> Sheet:
    """Lay a table out. Control characters of names are replaced; nothing else is changed."""
    notes = _Footnotes(table)
    nested = table.nested
    counts = {
        id(row): {_count(cell, nested) for cell in row.cells.values() if cell.n}
        for row in table.rows
    }
    n_column = not table.cite and all(len(n) <= 1 for n in counts.values())
    facts = (*table.facts, *(("n",) if n_column else ()))
    lines = []
    for row in table.rows:
        n = counts[id(row)]
        if row.published and not row.repeats:
            lines.append(_published(table, row, notes))
        if row.measured:
            lines.append(_measured(table, row, notes, n, n_column))
        if any(cell.difference is not None and not cell.hidden for cell in row.cells.values()):
            lines.append(_difference(table, row))
    groups: list[tuple[str, int]] = []
    for column in table.columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return Sheet(
        title=clean(table.title),
        first=clean(table.first),
        facts=facts,
        heads=tuple(clean(column.head) for column in table.columns),
        groups=tuple((clean(title), n) for title, n in groups) if any(g for g, _ in groups) else (),
        sections=tuple(map(clean, table.sections)),
        lines=tuple(lines),
        notes=tuple(map(clean, [*table.notes, *notes.common])),
        footnotes=tuple((letter, clean(text)) for text, letter in notes.letters.items()),
    )


def clean(text: str) -> str:
    """One line without what steers a terminal, or the direction of text, or cannot be encoded."""
    text = " ".join(str(text).split())
    return "".join("\ufffd" if unicodedata.category(each)[0] == "C" else each for each in text)


class _Footnotes:
    """Letters for the notes of published cells and of rows; what all share needs no letter."""

    def __init__(self, table: Table):
        cells = [cell for row in table.rows for cell in row.published.values()]
        self.common: list[str] = []
        if len(cells) > 1 and not any(cell.suspect for cell in cells):
            shared = set(cells[0].notes).intersection(*(cell.notes for cell in cells))
            self.common = [note for note in cells[0].notes if note in shared]
        self.letters: dict[str, str] = {}

    def marks(self, notes) -> str:
        """The letters of these notes."""
        return "".join(self._letter(note) for note in notes if note not in self.common)

    def _letter(self, note: str) -> str:
        if note not in self.letters:
            times, which = divmod(len(self.letters), len(LETTERS))
            self.letters[note] = LETTERS[which] * (times + 1)
        return self.letters[note]


def _published(table: Table, row: Row, notes: _Footnotes) -> SheetLine:
    """The published line; what all its numbers share is said at the label."""
    cells = list(row.published.values())
    shared = [note for note in cells[0].notes if all(note in cell.notes for cell in cells)]
    entries = []
    for column in table.columns:
        cell = row.published.get(column.key)
        if cell is None:
            entries.append(Entry(NOTHING))
            continue
        own = [note for note in cell.notes if note not in shared]
        text = _published_text(cell, table.decimals)
        entries.append(Entry(text, notes.marks(own), cell.best, cell.second))
    name = clean(row.published_as or row.label)
    label = Entry(f"{name} {PUBLISHED}", notes.marks(shared))
    return SheetLine("published", row.section, label, _facts(table, row), tuple(entries))


def _published_text(cell: PublishedCell, decimals: int) -> str:
    text = NOTHING if math.isnan(cell.mean) else f"{cell.mean:.1f}"
    if cell.delta is not None:
        text += f" ({_signed(cell.delta, decimals)})"
    return text


def _measured(table: Table, row: Row, notes: _Footnotes, n: set[str], n_column: bool) -> SheetLine:
    one = len(n) == 1
    label = clean(row.label)
    if table.cite:
        label += f" (ours, n = {next(iter(n))})" if one else " (ours)"
    in_cells = not n_column and not (table.cite and one)
    cells = [row.cells.get(column.key) for column in table.columns]
    entries = tuple(
        _instead(cells[place:]) if cell and cell.hidden else _measured_entry(cell, table, in_cells)
        for place, cell in enumerate(cells)
    )
    facts = _facts(table, row)
    if n_column:
        facts += (next(iter(n), str(len(row.seeds))),)
    return SheetLine("measured", row.section, Entry(label, notes.marks(row.notes)), facts, entries)


def _count(cell: Cell, nested: bool) -> str:
    """``5`` trials; beside rows of several pretrainings ``3 × 5``, ``1 × 5``, or ``5 + 5 + 4``."""
    if not nested:
        return str(cell.n)
    return counted(cell.fine_tunings or (1,) * cell.n)  # of a control


def _spread(cell: Cell, table: Table) -> str:
    """`` ± 0.8``; where rows are of several pretrainings, `` ± between / within them``."""
    between, within = (
        "" if math.isnan(each) else f"{each:.{table.decimals}f}"
        for each in (cell.std, cell.std_within)
    )
    if table.nested and cell.fine_tunings:
        between = between if cell.of_several else within and NOTHING  # of one it is not known
        return f" ± {between}{f' / {within}' if within else ''}" if between else ""
    return f" ± {between}" if between else ""


def _instead(cells: Sequence[Cell | None]) -> Entry:
    """What stands in place of a number that is not distinguishable from a random start."""
    first = cells[0]
    if first is None or not first.instead:
        return Entry(NOTHING)
    after = takewhile(lambda cell: cell and cell.hidden and not cell.instead, cells[1:])
    return Entry(first.instead, over=1 + len(list(after)))


def _measured_entry(cell: Cell | None, table: Table, show_n: bool) -> Entry:
    if cell is None or not cell.n:
        return Entry(NOTHING)
    decimals = table.decimals
    text = f"{cell.mean:.{decimals}f}{_spread(cell, table)}"
    if cell.delta is not None:
        text += f" ({_signed(cell.delta, decimals)})"
    if show_n:
        text += f" [n={_count(cell, table.nested)}]"
    return Entry(text, best=cell.best, second=cell.second)


def _difference(table: Table, row: Row) -> SheetLine:
    def entry(column: Column) -> Entry:
        cell = row.cells.get(column.key)
        if cell is None or cell.difference is None or cell.hidden:
            return Entry(NOTHING)
        inside = {True: " in", False: " out", None: ""}[cell.within]
        return Entry(_signed(cell.difference, table.decimals) + inside)

    facts = ("",) * len(table.facts)
    entries = tuple(map(entry, table.columns))
    return SheetLine("difference", row.section, Entry("ours − published"), facts, entries)


def _facts(table: Table, row: Row) -> tuple[str, ...]:
    return tuple(clean(row.facts.get(name) or NOTHING) for name in table.facts)


def _signed(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")  # no −0.0
