"""A table as text for a terminal, Markdown, LaTeX, HTML and CSV; a file for each."""

from . import flat, html, latex, markdown, terminal

FORMATS = {
    "terminal": terminal.render,
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
