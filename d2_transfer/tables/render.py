"""A table as Markdown, or drawn on a terminal."""

import math

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from .model import Cell, Table

MINIATURE = "A miniature: not comparable with published numbers."


def markdown(tables: list[Table]) -> str:
    """All tables as GitHub Markdown; the best of a column is bold."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    head, body = _cells(table)
    lines = [f"### {table.title}", "", _line(head)]
    lines.append(_line([":--" if not _numeric(name, table) else "--:" for name in head]))
    for row in body:
        lines.append(_line([f"**{text}**" if best else text for text, best in row]))
    lines += [""] + [f"{note}  " for note in notes(table)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def terminal(tables: list[Table]) -> RenderableType:
    """All tables for a rich console."""
    return Group(*(_drawn(table) for table in tables))


def _drawn(table: Table) -> RenderableType:
    head, body = _cells(table)
    grid = Grid(title=table.title, title_justify="left", title_style="bold")
    for name in head:
        grid.add_column(name, justify="right" if _numeric(name, table) else "left", no_wrap=True)
    for row in body:
        lines = (text.replace(" (", "\n(") for text, _ in row)  # 80 columns are enough
        styles = ("bold green" if best else "" for _, best in row)
        grid.add_row(*map(Text, lines, styles))
    return Group(grid, *(Text(note, style="dim") for note in notes(table)), Text())


def _cells(table: Table) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """The heads of the columns, and rows of (text, is it the best)."""
    facts = [name for name in ("data", "epochs") if any(getattr(row, name) for row in table.rows)]
    counts = {row.label: {cell.n for cell in row.cells.values()} for row in table.rows}
    one_n = all(len(n) <= 1 for n in counts.values())
    head = ["method", *facts, *(["n"] if one_n else []), *map(_head(table), table.metrics)]
    body = []
    for row in table.rows:
        line = [(row.label, False), *((getattr(row, name) or "–", False) for name in facts)]
        if one_n:
            line.append((str(next(iter(counts[row.label]), 0)), False))
        line += [
            _value(row.cells.get(name), table.decimals, show_n=not one_n) for name in table.metrics
        ]
        body.append(line)
    return head, body


def _head(table: Table):
    """'AP' where all metrics are of one task, 'segm AP' where there are several."""
    one_task = len({name.rpartition("/")[0] for name in table.metrics}) == 1
    return lambda name: name.rpartition("/")[2] if one_task else name.replace("/", " ")


def _numeric(head: str, table: Table) -> bool:
    return head in ("epochs", "n") or head in map(_head(table), table.metrics)


def _value(cell: Cell | None, decimals: int, show_n: bool) -> tuple[str, bool]:
    if cell is None:
        return "–", False
    text = f"{cell.mean:.{decimals}f}"
    if not math.isnan(cell.std):
        text += f" ± {cell.std:.{decimals}f}"
    if cell.delta is not None:
        text += f" ({cell.delta:+.{decimals}f})"
    if show_n:
        text += f" [n={cell.n}]"
    return text, cell.best


def notes(table: Table) -> list[str]:
    """What stands under a table: what is averaged, what is compared, what must not be."""
    lines = [MINIATURE] if table.mini else []
    tasks = sorted({name.rpartition("/")[0] for name in table.metrics} - {""})
    task = f"{tasks[0]}; " if len(tasks) == 1 else ""
    if any(len(row.seeds) > 1 for row in table.rows):
        lines.append(
            f"{task}mean ± standard deviation (ddof 1) over n fine-tunings of one pretrained "
            f"model (seeds {_seeds(table)}); per cent."
        )
    else:
        lines.append(f"{task}one fine-tuning a row (seed {_seeds(table)}); per cent.")
    if table.baseline:
        lines.append(f"In brackets: over {table.baseline}.")
    if table.variant:
        lines.append("Variants of a protocol give other numbers for the same weights.")
    return lines + table.notes


def _seeds(table: Table) -> str:
    """'1–5' when all rows have those, else each row's own."""
    spans = {row.label: _span(row.seeds) for row in table.rows}
    if len(set(spans.values())) == 1:
        return next(iter(spans.values()))
    return "; ".join(f"{label}: {span}" for label, span in spans.items())


def _span(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds))
