"""A plot's lines drawn with matplotlib, without a display."""

import math
import os
import textwrap
from collections.abc import Sequence
from itertools import pairwise

from . import style
from .model import Line, Plot, PlotPanel, breaks, in_legend

PANEL_HEIGHT = 2.1  # inches, the axis labels included
ROW_HEIGHT = 0.15  # of the legend, inches
LEGEND_SIZE = 7  # points
HANDLE = 2.6  # the length of a legend's line, in its font's size
MANY = 300  # points of a curve, whose noise hides others behind a thick line
TICKS = 6  # along a curve's axis: steps have many digits
MARKS = 8  # along a curve, so that it is told from others in grey print


def draw(plot: Plot, path: str | os.PathLike, wide: bool = False) -> None:
    """Write the plot to a ``.png``, ``.svg`` or ``.pdf``, as wide as a column or as a page.

    Raises InputError for another suffix, EnvironmentLacks without matplotlib.
    """
    path = style.check_format(path)
    with style.look():
        style.save(_figure(plot, wide), path)


def svg(plot: Plot) -> str:
    """The plot as the text of an SVG, as wide as a column: for a page, which scales it."""
    with style.look():
        return style.svg(_figure(plot, wide=False))


def _figure(plot: Plot, wide: bool):
    from matplotlib.figure import Figure

    width = style.PAGE if wide else style.COLUMN
    figure = Figure(figsize=(width, PANEL_HEIGHT * len(plot.panels)), layout="constrained")
    lines = [line for panel in plot.panels for line in panel.lines]
    texts = in_legend(lines)  # a run has one name and one look in all panels
    looks = {label: style.mark(nth) for nth, label in enumerate(texts)}
    handles = {}
    rows = figure.subplots(len(plot.panels), 1, squeeze=False)[:, 0]
    for panel, axes in zip(plot.panels, rows, strict=True):
        for nth, line in enumerate(panel.lines):
            marked = _marked(line.y, (nth + 0.5) / len(panel.lines)) if plot.curves else None
            handles[texts[line.label]] = _line(axes, line, looks[line.label], marked)
        _frame(axes, panel)
        if plot.curves:
            axes.locator_params(axis="x", nbins=TICKS, integer=True)
    _legend(figure, handles, plot.notes, width)
    return figure


def _line(axes, line: Line, look: style.Mark, marked: list[int] | None):
    """Draw it, a curve with marks at some places, and return what stands for it in the legend."""
    if line.published:
        (handle,) = axes.plot(
            line.x, line.y, "o", color="#555555", markerfacecolor="white", markersize=5, zorder=3
        )
        return handle
    drawn = {"color": look.colour, "linestyle": look.dash, "marker": look.marker}
    if marked is None or len(line.x) == 1:
        if line.low:
            _bars(axes, line, look.colour)
        return axes.plot(line.x, line.y, **drawn)[0]
    if line.low:
        axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.18, linewidth=0)
    broken = breaks(line)
    if broken:
        axes.plot(
            [line.x[place] for place in broken],
            [line.y[place] for place in broken],
            linestyle="",
            marker="x",
            markersize=6,
            markeredgewidth=1.4,
            color=look.colour,
            zorder=4,
        )
    thin = {"linewidth": 0.8} if len(line.x) > MANY else {}
    return axes.plot(line.x, line.y, markersize=3, markevery=marked, **thin, **drawn)[0]


def _bars(axes, line: Line, colour: str) -> None:
    """The spread of the trials; NaN is no bar."""
    below = [y - low for y, low in zip(line.y, line.low, strict=True)]
    above = [high - y for y, high in zip(line.y, line.high, strict=True)]
    axes.errorbar(line.x, line.y, [below, above], fmt="none", ecolor=colour, elinewidth=0.8)


def _marked(values: Sequence[float], shift: float) -> list[int]:
    """Which places of a curve have a marker: some, evenly, and those without a neighbour.

    ``shift`` (0 to 1, of their distance) keeps the marks of equal curves apart.
    """
    shown = [place for place, value in enumerate(values) if not math.isnan(value)]
    neighbours = set(shown)
    every = max(math.ceil(len(shown) / MARKS), 1)
    alone = {p for p in shown if p - 1 not in neighbours and p + 1 not in neighbours}
    return sorted(alone | set(shown[int(every * shift) :: every]))


def _frame(axes, panel: PlotPanel) -> None:
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(_wrapped(panel.y_label, 8, PANEL_HEIGHT - 0.5))
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        axes.margins(x=0.08)
    if panel.log:
        axes.set_xscale("log")
        axes.set_xticks(list(panel.log), panel.log.values())
        axes.set_xticks([], minor=True)
        axes.margins(x=0.08)


def _legend(figure, handles: dict[str, object], notes: Sequence[str], width: float) -> None:
    """Below the axes, where it hides nothing; the figure grows by its rows."""
    room = width - (HANDLE + 2) * LEGEND_SIZE / 72
    labels = [_wrapped(label, LEGEND_SIZE, room) for label in handles]
    columns = _columns(labels, width)
    title = "\n".join(_wrapped(note, LEGEND_SIZE, width - 0.15) for note in notes)
    lines = max(sum(len(label.splitlines()) for label in column) for column in columns)
    lines += len(title.splitlines())
    figure.set_figheight(figure.get_figheight() + ROW_HEIGHT * lines + 0.1)
    figure.legend(
        list(handles.values()),
        labels,
        loc="outside lower center",
        ncols=len(columns),
        title=title or None,
        alignment="left",
        handlelength=HANDLE,
        columnspacing=1.5,
        borderaxespad=0.2,
    )


def _columns(labels: Sequence[str], room: float) -> list[list[str]]:
    """The labels in as many columns, at most four, as fit; the first ones are the longer ones."""
    around = (HANDLE + 2.5) * LEGEND_SIZE / 72
    widths = {label: _width(label, LEGEND_SIZE) + around for label in labels}
    for count in range(min(4, len(labels)), 0, -1):
        each, more = divmod(len(labels), count)  # as matplotlib divides them
        starts = [nth * each + min(nth, more) for nth in range(count + 1)]
        columns = [list(labels[start:end]) for start, end in pairwise(starts)]
        if sum(max(widths[label] for label in column) for column in columns) <= room:
            break
    return columns


def _wrapped(text: str, size: float, room: float) -> str:
    """The text in lines of at most ``room`` inches, cut between words where there are some."""
    longest = _width(text, size)
    if longest <= room:
        return text
    return textwrap.fill(text, max(int(len(text) * room / longest * 0.95), 8))


def _width(text: str, size: float) -> float:
    """The width of a text (of its longest line) in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans")
    lines = [line for line in text.splitlines() if line.strip()] or ["x"]
    outlines = (TextPath((0, 0), line, size=size, prop=font) for line in lines)
    return (
        float(max(outline.vertices[:, 0].max(initial=0.0) for outline in outlines)) / 72
    )  # from points
