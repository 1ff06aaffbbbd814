"""Tables as GitHub's Markdown: the best of a column is bold, the second underlined."""

import re
from collections.abc import Sequence

from ..model import Table
from .sheet import Entry, Sheet, sheet

SPECIAL = re.compile(r"[\\`*|~$]|\](?=[(\[:])|\[(?=\^)")  # of brackets, those of links and notes
EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # within a word it means nothing
ENTITY = re.compile(r"&(?=#?\w+;)")


def render(tables: Sequence[Table]) -> str:
    """All tables, each below a heading with its title."""
    return "\n".join(_table(sheet(table)) for table in tables)


def escape(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no HTML, no end of a cell."""
    text = SPECIAL.sub(lambda found: "\\" + found[0], text)
    text = EDGE_UNDERSCORE.sub(r"\\_", text)
    return ENTITY.sub("&amp;", text).replace("<", "&lt;").replace(">", "&gt;")


def _table(page: Sheet) -> str:
    lines = [f"### {escape(page.title)}", "", _line(_head(page))]
    lines.append(_line(["--:" if number else ":--" for number in page.numeric]))
    section = 0
    for line in page.lines:
        if line.section != section:
            section = line.section
            lines += _section(page, section)
        elif line is page.lines[0]:
            lines += _section(page, section)
        facts = [escape(fact) for fact in line.facts]
        lines.append(_line([_entry(line.label), *facts, *map(_entry, line.cells)]))
    lines += [""] + [f"{escape(note)}  " for note in page.notes]
    lines += [f"<sup>{letter}</sup> {escape(text)}  " for letter, text in page.footnotes]
    return "\n".join(lines) + "\n"


def _section(page: Sheet, section: int) -> list[str]:
    title = page.sections[section]
    return [_line([f"*{escape(title)}*", *[""] * (len(page.numeric) - 1)])] if title else []


def _head(page: Sheet) -> list[str]:
    """The heads; Markdown has no heads over several columns, so each names its group."""
    groups = [title for title, width in page.groups for _ in range(width)] or [""] * len(page.heads)
    heads = [f"{group} {head}".strip() for group, head in zip(groups, page.heads, strict=True)]
    return [escape(text) for text in (page.first, *page.facts, *heads)]


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.best:
        text = f"**{text}**"
    elif entry.second:
        text = f"<u>{text}</u>"
    return text + (f"<sup>{entry.marks}</sup>" if entry.marks else "")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
