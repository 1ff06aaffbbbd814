"""Tables drawn for a terminal with rich: the best of a column is bold, the second underlined."""

from collections.abc import Sequence
from itertools import pairwise

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from ..model import Table
from .sheet import Entry, Sheet, sheet

SUPERSCRIPTS = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")
STYLES = {"published": "dim", "measured": "", "difference": "italic"}
WIDTH = 160  # where it is not a terminal


def render(tables: Sequence[Table], console: Console | None = None) -> str:
    """All tables as a terminal shows them, for ``console`` or without colours."""
    console = console or Console(width=WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(Group(*(_drawn(sheet(table)) for table in tables)))
    return captured.get()


def _drawn(page: Sheet) -> RenderableType:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    facts = [Text(fact) for fact in page.facts]
    heads = [Text(page.first), *facts, *_heads(page)]
    height = max(len(head.plain.splitlines()) for head in heads)
    for head, number in zip(heads, page.numeric, strict=True):
        above = "\n" * (height - len(head.plain.splitlines()))
        grid.add_column(Text(above) + head, justify="right" if number else "left", no_wrap=True)
    mixed = any(line.kind == "measured" for line in page.lines)
    for nth, line in enumerate(page.lines):
        begins = nth == 0 or line.section != page.lines[nth - 1].section
        if begins and (title := page.sections[line.section]):
            grid.add_row(Text(title, style="italic"))
        style = STYLES[line.kind] if mixed else ""
        cells = [_text(entry, style) for entry in line.cells]
        label = _text(line.label, style)
        grid.add_row(label, *(Text(fact, style=style) for fact in line.facts), *cells)
        after = page.lines[nth + 1 : nth + 2]
        if after and after[0].section != line.section:
            grid.add_section()
    notes = [Text(note, style="dim") for note in page.notes]
    notes += [
        Text(f"{letter.translate(SUPERSCRIPTS)} {text}", style="dim")
        for letter, text in page.footnotes
    ]
    return Group(Text(page.title, style="bold"), grid, *notes, Text())


def _heads(page: Sheet) -> list[Text]:
    """Each head; the first of a group has the group's title above it."""
    heads = [Text(head) for head in page.heads]
    if not page.groups:
        return heads
    widths = [0]
    for _, width in page.groups:
        widths.append(widths[-1] + width)
    for (start, _), (title, _) in zip(pairwise(widths), page.groups, strict=True):
        heads[start] = Text("\n".join([*title.split(), page.heads[start]]))
    return heads


def _text(entry: Entry, style: str) -> Text:
    """80 columns are enough for a usual table: what is behind the number goes below."""
    lines, ends = entry.text, (" (", " / ") if entry.text[:1] in "+−0123456789" else ()
    for before in (" distinguishable", " from ", " (") if entry.over else ends:
        lines = lines.replace(before, f"\n{before[1:]}")
    text = Text(lines)
    text.append(entry.marks.translate(SUPERSCRIPTS))
    text.stylize("bold green" if entry.best else "underline" if entry.second else style)
    return text
