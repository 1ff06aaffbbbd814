"""A table as text for a terminal, Markdown, LaTeX, HTML and CSV; a file for each."""

from collections.abc import Sequence

from ..model import Table
from . import flat, html, latex, markdown


def _on_terminal(tables: Sequence[Table]) -> str:
    from . import terminal  # needs rich, which the others do not

    return terminal.render(tables)


FORMATS = {
    "terminal": _on_terminal,
    "md": markdown.render,
    "latex": latex.render,
    "html": html.render,
    "csv": flat.render,
}
SUFFIXES = {
    ".txt": "terminal",
    ".md": "md",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
    ".csv": "csv",
}
