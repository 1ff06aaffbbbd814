"""Panels on a page: one picture an image, or a contact sheet of several images."""

import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densessl.core.errors import EnvironmentLacks
from densessl.core.files import write_atomic

from . import by_classes, by_features, by_geometry, by_parts
from .panels import (
    LOCAL,
    VIEW_COLOURS,
    Panel,
    draw_panel,
    label,
    legend_lines,
    rectangle,
    show_pixels,
)
from .section import Section, pixels_of, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from .look import Look

SECTIONS: dict[str, Callable[["Look"], Section]] = {
    "setsim": by_features.setsim,
    "houghcl": by_features.houghcl,
    "densecl": by_features.densecl,
    "pixpro": by_geometry.pixpro,
    "vader": by_geometry.vader,
    "resim": by_geometry.resim,
    "scfs": by_features.scfs,
    "jigsaw": by_parts.jigsaw,
    "classes": by_classes.classes,
}
WIDTH, COLUMNS = 13.0, 12  # inches of a page, and columns that panels share
VIEWS = 3.4  # inches of the row of views
TITLE, LEGEND, LEGEND_LINE = 0.3, 0.12, 0.16  # inches above a panel, below it, a line of words
HEADING = 0.5  # inches for a section's
DPI, SHEET_DPI = 110, 80
SHEET_ROW, SHEET_WIDTH = 2.1, 10.0  # least inches of a row without words, and of all panels
LETTERS = 12  # an inch, of the words above a sheet
UNKNOWN = "unknown"  # as a conversion says of a method
METADATA = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # no time of day


def draw_picture(
    look: "Look", methods: Sequence[str], out: Path, format: str, dpi: int | None
) -> None:
    """Write a picture of one image: its views, and below them a section a method."""
    from matplotlib.figure import Figure

    sections = [SECTIONS[method](look) for method in methods]
    strips: list[tuple[float, Callable]] = [(VIEWS, partial(_row, panels=_views(look)))]
    for section in sections:
        strips.append((HEADING, partial(_heading, section=section)))
        strips += [(_height(row), partial(_row, panels=row)) for row in section.rows]
    title = 0.55
    with _style(), _says_why(out):
        figure = Figure(figsize=(WIDTH, title + sum(height for height, _ in strips)))
        y = 1 - 0.15 / figure.get_figheight()
        words = f"{shown(look.image.name)}   ·   {_describe_checkpoint(look)}"
        figure.suptitle(words, fontsize=13, y=y, va="top", parse_math=False)
        _stack(figure, strips, title)
        _write(figure, out, format, dpi or DPI)


def draw_sheet(
    looks: Sequence["Look"], methods: Sequence[str], out: Path, format: str, dpi: int | None
) -> None:
    """Write one picture of several images: a row each, with the panels that say most."""
    from matplotlib.figure import Figure

    rows = []
    for look in looks:
        sections = [SECTIONS[method](look) for method in methods]
        panels = [panel for section in sections for row in section.rows for panel in row]
        rows.append([_source_panel(look), *(panel for panel in panels if panel.sheet)])
        look.forget()
    shares = [1 / panel.aspect for panel in rows[0]]
    side = min(VIEWS, max(SHEET_ROW, SHEET_WIDTH / sum(shares)))
    width = side * sum(shares) + 0.2 * len(shares)
    strip = side + TITLE + max(_below(panels) for panels in rows)
    words = [_describe_checkpoint(look), *(f"{each.name}: {each.text}" for each in sections)]
    words = [line for each in words for line in textwrap.wrap(each, int(width * LETTERS))]
    title = 0.2 + 0.2 * len(words)
    with _style(), _says_why(out):
        figure = Figure(figsize=(width, title + strip * len(rows)))
        for number, line in enumerate(words):
            y = 1 - (0.2 + 0.2 * number) / figure.get_figheight()
            figure.text(0.5, y, line, fontsize=10.5, ha="center", va="center", parse_math=False)
        strips = [(strip, partial(_row, panels=panels, widths=shares)) for panels in rows]
        _stack(figure, strips, title)
        _write(figure, out, format, dpi or SHEET_DPI)


# ------------------------------------------------------------------------------------------- parts


def _views(look: "Look") -> list[Panel]:
    """The image with the boxes of its views, and the views."""
    panels = [_source_panel(look, columns=4)]
    for k, (view, pixels) in enumerate(zip(look.views, pixels_of(look), strict=True)):
        flipped = ", mirrored" if bool(view.flip[0]) else ""
        draw = partial(show_pixels, pixels=pixels, colour=VIEW_COLOURS[k])
        panels.append(Panel(f"view {k + 1}{flipped}", draw, columns=4))
    return panels


def _source_panel(look: "Look", columns: int = 3) -> Panel:
    name = shown(look.image.name)
    title = f"{name}: the two views" if columns == 3 else "the image and where its views were cut"
    legend = tuple(zip(VIEW_COLOURS, ("view 1", "view 2"), strict=True))
    if look.voters:
        legend += ((LOCAL, "local crop"),)
    return Panel(title, partial(_source, look=look), legend if columns > 3 else (), columns)


def _source(axes, look: "Look") -> None:
    from densessl.decoding import decode

    picture = decode(look.source.open(0), look.model.bounds)
    show_pixels(axes, picture.image)
    outlined = [*look.views, *(look.local if look.voters else ())]
    boxes = [
        [
            edge / factor
            for edge, factor in zip(view.box[0].tolist(), picture.scale * 2, strict=True)
        ]
        for view in outlined
    ]
    for box in boxes[2:]:
        rectangle(axes, box, LOCAL, 2)
    boxes = boxes[:2]
    for k, box in enumerate(boxes):
        rectangle(axes, box, VIEW_COLOURS[k], 3)
    for k, box in enumerate(boxes):
        x1, y1, x2, y2 = (edge - 0.5 for edge in box)
        # In opposite corners, for boxes that lie alike.
        x, y, across, down = ((x1, y1, "left", "top"), (x2, y2, "right", "bottom"))[k]
        label(axes, x, y, f"view {k + 1}", VIEW_COLOURS[k], ha=across, va=down)


def _describe_checkpoint(look: "Look") -> str:
    model = look.model
    steps = f"{model.iteration} steps" if model.iteration else ""
    method = "" if model.method == UNKNOWN else shown(model.method)
    known = [word for word in (method, steps, model.network) if word]
    h, w = look.grid
    return (
        f"{shown(model.name)}: {', '.join(known)}   ·   "
        f"{look.level}: {h} × {w} positions   ·   seed {look.seed}"
    )


# ------------------------------------------------------------------------------------------ layout


def _height(row: Sequence[Panel]) -> float:
    tallest = max(panel.columns / COLUMNS * panel.aspect for panel in row)
    return 0.93 * WIDTH * tallest + TITLE + _below(row)


def _below(row: Sequence[Panel]) -> float:
    """Inches for the legends below a row of panels."""
    return LEGEND + LEGEND_LINE * max(legend_lines(panel) for panel in row)


def _stack(figure: "Figure", strips: Sequence[tuple[float, Callable]], title: float) -> None:
    """Strips of given heights (inches) one below the other, under the title."""
    parts = figure.subfigures(
        len(strips) + 1, 1, height_ratios=[title, *(height for height, _ in strips)], hspace=0
    )
    for part, (_, draw) in zip(parts[1:], strips, strict=True):
        draw(part)


def _heading(part: "SubFigure", section: Section) -> None:
    from matplotlib.lines import Line2D

    part.text(0.012, 0.42, section.name, fontsize=13, weight="bold", va="center")
    words = f"{section.text}; {section.note}" if section.note else section.text
    part.text(0.085, 0.42, words, fontsize=10, va="center", parse_math=False)
    part.add_artist(Line2D((0.012, 0.988), (0.85, 0.85), color="#999999", lw=1))


def _row(part: "SubFigure", panels: Sequence[Panel], widths: Sequence[float] | None = None) -> None:
    """Panels side by side, sized by their columns (or ``widths``)."""
    shares = widths or [panel.columns for panel in panels]
    if widths is None and sum(shares) < COLUMNS:  # in the middle
        free = (COLUMNS - sum(shares)) / 2
        shares = [free, *shares, free]
    height = part.bbox.height / part.figure.dpi  # inches
    place = part.add_gridspec(
        1,
        len(shares),
        width_ratios=shares,
        left=0.012,
        right=0.988,
        bottom=_below(panels) / height,
        top=1 - TITLE / height,
        wspace=0.06,
    )
    first = (len(shares) - len(panels)) // 2
    for number, panel in enumerate(panels):
        draw_panel(part.add_subplot(place[0, first + number]), panel)


@contextmanager
def _style():
    """Matplotlib's own style whatever the user's, and drawings that only their input decides."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.hashsalt"] = "densessl"
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@contextmanager
def _says_why(out: Path):
    """A full disk or a folder without permission is the environment's fault, in one line."""
    try:
        yield
    except OSError as error:
        raise EnvironmentLacks(f"cannot write {out}: {error.strerror or error}") from None


def _write(figure: Any, out: Path, format: str, dpi: int) -> None:
    write_atomic(
        out,
        lambda stream: figure.savefig(
            stream, format=format, dpi=dpi, metadata=METADATA[format], facecolor="white"
        ),
    )
