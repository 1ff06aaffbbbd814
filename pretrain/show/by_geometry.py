"""Panels of what the geometry of two crops says: PixPro, VADeR, ReSim. Features play no part."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from . import matches
from .matches import Match, spread
from .panels import NONE, SERIES, Legend, Panel, SideBySide, cell_set, cutouts, label, rectangle
from .section import FEW, MANY, Section, drawn, lines, panel_of_pair, pixels_of

if TYPE_CHECKING:
    from .look import Look

POINTS = 36
TILE = 64  # pixels of a cut-out


def pixpro(look: "Look") -> Section:
    """The positions that geometry pairs, and which of either view have a partner."""
    options = look.options.PIXPRO
    same = matches.geometry(look.pair, options.THRESHOLD, options.FRAME)
    row = [geometry_panel(look, options.THRESHOLD, options.FRAME)]
    for k in range(2):
        partners = same.any(1 - k).view(look.grid)
        row.append(
            Panel(
                f"view {k + 1}: {int(partners.sum())} of {partners.numel()} have a partner",
                partial(cell_set, pixels=pixels_of(look)[k], members=partners),
                legend=(("#333333", "no position close enough"),),
                sheet=False,
            )
        )
    text = (
        f"positives are positions whose places in the image lie less than {options.THRESHOLD:g} "
        "cell diagonals apart"
    )
    return Section("PixPro", text, [row])


def geometry_panel(look: "Look", threshold: float, frame: str, columns: int = 6, **more) -> Panel:
    """Lines between the positions that geometry pairs (PixPro eq. 1, SetSim's Geo)."""
    from matplotlib import colormaps

    pairs = matches.geometry(look.pair, threshold, frame).nonzero().tolist()
    shown = spread(pairs, MANY)
    queries = sorted({query for query, _ in pairs})
    turbo = colormaps["turbo"].resampled(max(2, len(queries)))
    colours = {query: turbo(i) for i, query in enumerate(queries)}

    def draw(side: SideBySide) -> None:
        found = [Match(query, key, 1.0) for query, key in shown]
        lines(side, look, found, [colours[match.query] for match in found], width=0.9)

    if not pairs:
        return panel_of_pair(look, "geometry: no positions are close enough", draw, columns, **more)
    title = f"the same place in both views: {len(pairs)} pairs{drawn(len(shown), len(pairs))}"
    more["legend"] = ((NONE, "one colour: one position of view 1"),)
    return panel_of_pair(look, title, draw, columns, **more)


def vader(look: "Look") -> Section:
    """Points that both views show."""
    from matplotlib import colormaps

    found = matches.points(look.views[0], look.views[1], POINTS, look.seed)
    turbo = colormaps["turbo"].resampled(max(2, len(found)))

    def draw(side: SideBySide) -> None:
        for number, (own, other) in enumerate(found):
            # Points are in pixel edges, drawings in pixel centres.
            start, end = ((x - 0.5, y - 0.5) for x, y in (own, other))
            side.line(start, end, turbo(number), width=0.9)

    title = f"{len(found)} points that both views show" if found else "the views do not overlap"
    legend = ((NONE, "one line: one place of the image"),) if found else ()
    row = [panel_of_pair(look, title, draw, legend=legend)]
    return Section("VADeR", "positives are points at the very same place of the image", [row])


def resim(look: "Look") -> Section:
    """The windows that both views show, and a few of them cut out."""
    found = matches.window_pairs(look.views[0], look.views[1], look.options.RESIM, look.scale)
    few = spread(found.pairs, FEW)

    def draw(side: SideBySide) -> None:
        for pair in found.pairs:
            _window(side, pair, "white", 0.6, alpha=0.7)
        for number, pair in enumerate(few):
            _window(side, pair, SERIES[number], 2, text=str(number + 1))

    flips = [bool(view.flip[0]) for view in look.views]
    title = f"{len(found.pairs)} of {found.total} windows of view 1 lie in view 2, too"
    legend: Legend = ()
    if few:
        legend = (
            ("#ffffff", "a window that both show"),
            *((SERIES[i], str(i + 1)) for i in range(len(few))),
        )
    row = [panel_of_pair(look, title, draw, legend=legend)]
    if few:
        mirrored = ", mirrored" if flips[0] != flips[1] else ""
        tiles = [[_tile(side, pair[k]) for pair in few] for k, side in enumerate(pixels_of(look))]
        row.append(
            Panel(
                f"above: the windows in view 1; below: in view 2{mirrored}",
                partial(cutouts, rows=tiles, colours=SERIES[: len(few)]),
                columns=6,
                aspect=2 / FEW,
                sheet=False,
            )
        )
    text = (
        f"positives are windows of {found.side} pixels, every {found.stride}, found again by "
        "geometry in the other view"
    )
    return Section("ReSim", text, [row])


def _window(side: SideBySide, pair, colour, width: float, text: str = "", **style) -> None:
    for k, (x1, y1, x2, y2) in enumerate(pair):
        (a, b), (c, d) = side.place((x1, y1), bool(k)), side.place((x2, y2), bool(k))
        rectangle(side.axes, (a, b, c, d), colour, width, **style)
        if text:
            label(side.axes, a + 2, b + 2, text, colour, ha="left", va="top")


def _tile(pixels: np.ndarray, box: matches.Box) -> np.ndarray:
    """The part of a view in a box, as a small square ``[TILE, TILE, 3]``."""
    from PIL import Image

    image = Image.fromarray((pixels * 255).round().astype(np.uint8))
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = np.clip(box, 0, (width, height, width, height))
    small = image.resize((TILE, TILE), Image.Resampling.BILINEAR, box=(x1, y1, x2, y2))
    return np.asarray(small, dtype=np.float32) / 255
