"""What a panel is, and what can be drawn in one: views, maps, sets, lines between two views.

A view fills the axes in its own pixels: the centre of pixel 0 is at 0, its edge at -0.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VIEW_COLOURS = ("#ffb000", "#00b4d8")  # of view 1 and view 2
# Told apart by colour-blind people, too (Okabe and Ito).
GOOD, BAD = "#009e73", "#d55e00"
MAP = "inferno"
DARK, BRIGHT = "#1b0c41", "#fcffa4"  # of the ends of MAP, as a legend shows them
SERIES = ("#e6194b", "#0082c8", "#f58231", "#3cb44b", "#911eb4", "#9a6324")
LOCAL = "#76ff03"  # of local crops
NONE = "none"  # in a legend: words without a colour
THICK = 1.5  # points: lines that are few
GAP, DROP = 1 / 8, 1 / 6  # between two views side by side, in widths; the second lies lower
PAIR_ASPECT = (1 + DROP) / (2 + GAP)  # height over width

Point = tuple[float, float]
Legend = tuple[tuple[str, str], ...]  # colour, meaning


@dataclass(frozen=True)
class Panel:
    """One drawing of a picture: its title, who draws it, and the meaning of its colours."""

    title: str
    draw: Callable[["Axes"], None]
    legend: Legend = ()
    columns: int = 3  # of the twelve of a picture
    aspect: float = 1.0  # height over width
    sheet: bool = True  # whether a contact sheet has it


def draw_panel(axes: "Axes", panel: Panel) -> None:
    """Draw a panel with its title above and its legend below."""
    from matplotlib.patches import Patch

    panel.draw(axes)
    axes.set_title(panel.title, fontsize=9.5, parse_math=False)
    if panel.legend:
        handles = [
            Patch(
                facecolor=colour, edgecolor="none" if colour == NONE else "#888888", label=meaning
            )
            for colour, meaning in panel.legend
        ]
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=-(-len(handles) // legend_lines(panel)),
            fontsize=8,
            frameon=False,
            handlelength=0 if panel.legend[0][0] == NONE else 1.2,
            borderaxespad=0.1,
            borderpad=0.1,
            labelspacing=0.25,
        )


def legend_lines(panel: Panel) -> int:
    """How many lines the legend of a panel takes."""
    return min(len(panel.legend), 1) if panel.columns > 3 else len(panel.legend)


def show_pixels(axes: "Axes", pixels: Any, colour: str | None = None) -> None:
    """An image ``[H, W, 3]`` without ticks, framed in ``colour``."""
    axes.imshow(pixels, interpolation="bilinear")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(colour is not None)
        spine.set(color=colour, linewidth=3)


def heat(axes: "Axes", pixels: Any, values: Tensor, low: float = 0.0, high: float = 1.0) -> None:
    """A map ``[h, w]`` over its view, from dark (``low``) to bright (``high``)."""
    show_pixels(axes, pixels)
    axes.imshow(
        values.numpy(),
        extent=_extent(pixels),
        cmap=MAP,
        alpha=0.6,
        vmin=low,
        vmax=max(high, low + 1e-12),
        interpolation="bilinear",
    )


def darkened(axes: "Axes", pixels: Any, members: Tensor, at: Point = (0, 0)) -> None:
    """Darken all cells of the view at ``at`` but the members, bool ``[h, w]``."""
    shade = np.zeros((*members.shape, 4))
    shade[..., 3] = 0.7 * (~members).numpy()
    axes.imshow(shade, extent=_extent(pixels, at), interpolation="nearest", zorder=1)


def cell_set(axes: "Axes", pixels: Any, members: Tensor) -> None:
    """A view with all but the members' cells darkened."""
    show_pixels(axes, pixels)
    darkened(axes, pixels, members)


def _extent(pixels: Any, at: Point = (0, 0)) -> tuple[float, float, float, float]:
    height, width = pixels.shape[:2]
    x, y = at[0] - 0.5, at[1] - 0.5
    return x, x + width, y + height, y


def rectangle(axes: "Axes", box: Sequence[float], colour: str, width: float = 2, **style) -> None:
    """The outline of a box x1, y1, x2, y2, which is in pixel edges."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = (edge - 0.5 for edge in box)
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, lw=width, **style)
    )


def label(axes: "Axes", x: float, y: float, text: str, colour: str, **style) -> None:
    """A short text on a patch of ``colour``."""
    patch = {"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "white", "lw": 0.5}
    axes.text(x, y, text, fontsize=7.5, color="white", weight="bold", bbox=patch, **style)


@dataclass(frozen=True)
class SideBySide:
    """Two views in one panel, the second to the right and lower, so that lines of a row fan out."""

    axes: "Axes"
    views: tuple[Any, Any]  # pixels [H, W, 3] of the same size

    @property
    def offset(self) -> Point:
        """Where the second view's first pixel is."""
        height, width = self.views[0].shape[:2]
        return width + round(width * GAP), round(height * DROP)

    def draw(self) -> "SideBySide":
        """The views, framed in their colours."""
        height, width = self.views[0].shape[:2]
        right, down = self.offset
        canvas = np.ones((height + down, right + width, 3), dtype=np.float32)
        canvas[:height, :width], canvas[down:, right:] = self.views
        show_pixels(self.axes, canvas)
        for (x, y), colour in zip(((0, 0), self.offset), VIEW_COLOURS, strict=True):
            rectangle(self.axes, (x, y, x + width, y + height), colour, 2.5)
        return self

    def place(self, point: Point, second: bool) -> Point:
        """A point of the first or the second view, as x, y of the panel."""
        right, down = self.offset if second else (0, 0)
        return point[0] + right, point[1] + down

    def label(self, point: Point, second: bool, text: str, colour: str) -> None:
        """A short text beside a point of a view: outwards of the panel, inwards near its edge."""
        width = self.views[0].shape[1]
        left = (point[0] > 0.12 * width) if not second else (point[0] > 0.85 * width)
        x, y = self.place(point, second)
        x += width * (-0.03 if left else 0.03)
        label(self.axes, x, y, text, colour, ha="right" if left else "left", va="center")

    def line(self, start: Point, end: Point, colour: Any, width: float = 1.1, **style) -> None:
        """A line from a point of the first view to one of the second; a thick one has a rim."""
        from matplotlib.patheffects import withStroke

        (x1, y1), (x2, y2) = self.place(start, False), self.place(end, True)
        # In a crowd of thin lines, the rims would hide the lines below.
        rim = [withStroke(linewidth=width + 1.4, foreground="white")] if width >= THICK else None
        self.axes.plot(
            (x1, x2), (y1, y2), "o-", color=colour, lw=width, ms=2.5, path_effects=rim, **style
        )


def centre(position: int, grid: tuple[int, int], pixels: Any) -> Point:
    """The centre (x, y) of a cell of the grid, in pixels of its view."""
    height, width = pixels.shape[:2]
    row, column = divmod(position, grid[1])
    return (column + 0.5) * width / grid[1] - 0.5, (row + 0.5) * height / grid[0] - 0.5


def cutouts(axes: "Axes", rows: Sequence[Sequence[Any]], colours: Sequence[str]) -> None:
    """Small square images in rows, one column a colour, numbered from 1."""
    side, gap = rows[0][0].shape[0], 4
    step = side + gap
    canvas = np.ones((step * len(rows) - gap, step * len(colours) - gap, 3), dtype=np.float32)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            canvas[i * step : i * step + side, j * step : j * step + side] = tile
    show_pixels(axes, canvas)
    for j, colour in enumerate(colours):
        for i in range(len(rows)):
            x, y = j * step, i * step
            rectangle(axes, (x, y, x + side, y + side), colour, 2.5)
        label(axes, j * step + 3, 3, str(j + 1), colour, ha="left", va="top")
