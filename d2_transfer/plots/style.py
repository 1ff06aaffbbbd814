"""The one look of all plots: for a paper's column, for colour-blind readers and for grey print."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from densessl.core import install
from densessl.core.errors import EnvironmentLacks, InputError, nearest
from densessl.core.files import write_atomic

COLUMN, PAGE = 3.4, 6.9  # inches: a column of a two-column paper, and both
DPI = 200
FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's colours without the yellow, which is too light for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # as many lines differ as 7 · 5 · 8

LOOK = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture everywhere
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "text.parse_math": False,  # a folder may have dollar signs in its name
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "densessl",  # the same plot is the same bytes
    "pdf.fonttype": 42,
}
NO_DATES = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


@dataclass(frozen=True)
class Mark:
    """How one line is told from the others."""

    colour: str
    dash: str | tuple
    marker: str


def mark(nth: int) -> Mark:
    """The look of a plot's ``nth`` line."""
    return Mark(COLOURS[nth % len(COLOURS)], DASHES[nth % len(DASHES)], MARKERS[nth % len(MARKERS)])


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Draw in this look, whatever the user's own settings of matplotlib are."""
    try:
        from matplotlib import style
    except ImportError as error:
        raise EnvironmentLacks(
            f"matplotlib does not load ({error}); fix it with: {install.command('transfer')}"
        ) from None
    with style.context(["default", LOOK]):
        yield


def check_format(path: str | os.PathLike) -> Path:
    """``path``, if its suffix is one of FORMATS and it is no folder; InputError otherwise."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        near = nearest(suffix, FORMATS)
        meant = f" Did you mean {near}?" if near else ""
        raise InputError(
            f"-o {path}: '{suffix}' is no format of a plot.{meant} Allowed: {', '.join(FORMATS)}"
        )
    if path.is_dir():
        raise InputError(f"-o {path} is a folder; name a file")
    return path


def svg(figure) -> str:
    """A matplotlib figure as the text of an SVG, without dates in it: for a page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=NO_DATES[".svg"])
    return stream.getvalue()


def save(figure, path: Path) -> None:
    """Write a matplotlib figure in the format of the suffix, atomically, without dates in it."""
    suffix = path.suffix.lower()
    write_atomic(
        path,
        lambda stream: figure.savefig(
            stream, format=suffix[1:], dpi=DPI, metadata=NO_DATES[suffix]
        ),
    )
