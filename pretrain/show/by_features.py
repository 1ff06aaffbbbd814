"""Panels of what features say: SetSim, HoughCL, DenseCL, SCFS."""

from functools import partial
from typing import TYPE_CHECKING

import torch

from . import matches
from .by_geometry import geometry_panel
from .matches import Match, spread
from .panels import (
    BAD,
    BRIGHT,
    DARK,
    GOOD,
    LOCAL,
    NONE,
    SERIES,
    Panel,
    SideBySide,
    cell_set,
    centre,
    darkened,
    heat,
    show_pixels,
)
from .section import FEW, MANY, Section, drawn, lines, panel_of_pair, pixels_of, searched

if TYPE_CHECKING:
    from .look import Look

SEVERAL = "#333333"  # of a label for several matches


def setsim(look: "Look") -> Section:
    """SetSim's Figure 4: attention, sets, their pairs, neighbours; and its geometry."""
    options = look.options.SETSIM
    sets = matches.sets(look.pair, options)
    views = pixels_of(look)
    first = []
    for k in range(2):
        first.append(
            Panel(
                f"attention in view {k + 1}",
                partial(heat, pixels=views[k], values=sets.attention[k]),
                legend=((DARK, "least attended (0)"), (BRIGHT, "most attended (1)")),
            )
        )
    for k in range(2):
        count = int(sets.members[k].sum())
        first.append(
            Panel(
                f"salient set of view {k + 1}: {count} of {sets.members[k].numel()}",
                partial(cell_set, pixels=views[k], members=sets.members[k]),
                legend=(("#333333", f"attention below {options.THRESHOLD:g}: not in the set"),),
                sheet=False,
            )
        )
    second = [_set_to_set(look, sets), _salient_neighbours(look, sets)]
    threshold = options.GEOMETRY_THRESHOLD or 0.5
    second.append(geometry_panel(look, threshold, options.GEOMETRY_FRAME, columns=4, sheet=False))
    text = (
        "positives are all pairs of salient positions, each salient position with its nearest "
        "neighbour, and positions that show the same place"
    )
    return Section("SetSim", text, [first, second])


def _set_to_set(look: "Look", sets: matches.Sets) -> Panel:
    def draw(side: SideBySide) -> None:
        for k in range(2):
            darkened(side.axes, side.views[k], sets.members[k], side.place((0, 0), bool(k)))
        if sets.most_attended is None:
            return
        keys = sets.members[1].flatten().nonzero().flatten().tolist()
        found = [Match(sets.most_attended, key, 1.0) for key in spread(keys, MANY)]
        lines(side, look, found, [SERIES[0]] * len(found), width=0.8)

    if not sets.pairs:
        return panel_of_pair(look, "set to set: attention is constant, no pairs", draw, 4)
    m, n = (int(each.sum()) for each in sets.members)
    title = f"set to set: {m} × {n} = {sets.pairs} pairs"
    legend = ((SERIES[0], "pairs of the most attended position"),)
    return panel_of_pair(look, title, draw, 4, legend=legend)


def _salient_neighbours(look: "Look", sets: matches.Sets) -> Panel:
    salient = sets.members[0].flatten().nonzero().flatten().tolist()
    found = matches.neighbours(look.pair, spread(salient, FEW))

    def draw(side: SideBySide) -> None:
        lines(side, look, found, list(SERIES[: len(found)]), width=1.6)
        for k, view in enumerate(side.views):
            positions = [match[:2][k] for match in found]
            for position in dict.fromkeys(positions):  # a key may be several's neighbour
                numbers = [i for i, each in enumerate(positions) if each == position]
                text = " ".join(str(i + 1) for i in numbers)
                colour = SERIES[numbers[0]] if len(numbers) == 1 else SEVERAL
                side.label(centre(position, look.grid, view), bool(k), text, colour)

    if not found:
        return panel_of_pair(look, "nearest neighbours: no salient position", draw, 4)
    title = f"nearest neighbours of {len(found)} salient positions"
    legend = ((NONE, "one number and colour: a position and its neighbour"),)
    return panel_of_pair(look, title, draw, 4, legend=legend)


def houghcl(look: "Look") -> Section:
    """HoughCL's figure: the most and the least confident matches, and all confidences."""
    options = look.options.HOUGH
    found = matches.hough(look.pair, options)

    def draw(side: SideBySide) -> None:
        lines(side, look, found.least, [BAD] * len(found.least), width=0.8)
        lines(side, look, found.most, [GOOD] * len(found.most), width=2.2)

    most, least = len(found.most), len(found.least)
    legend = ((GOOD, f"the {most} most confident"), (BAD, f"the {least} least confident"))
    title = f"Hough matches of {len(found.matches)} positions"
    rows = [
        [
            panel_of_pair(look, title, draw, legend=legend),
            Panel(
                "confidence of each position's match",
                partial(heat, pixels=look.pixels(look.views[0]).numpy(), values=found.confidence),
                legend=((DARK, "none"), (BRIGHT, "most in this image")),
                sheet=False,
            ),
            Panel("the matches by confidence", partial(_bars, found=found), sheet=False),
        ]
    ]
    text = "a match is confident when it looks alike and many matches have the same offset"
    note = ""
    flips = [bool(view.flip[0]) for view in look.views]
    if flips[0] != flips[1] and not options.UNFLIP:
        note = "here one view is mirrored, which no single offset explains"
    return Section("HoughCL", text, rows, note)


def _bars(axes, found: matches.Hough) -> None:
    weights = [match.weight for match in found.matches]
    rest = len(weights) - len(found.most) - len(found.least)
    colours = [GOOD] * len(found.most) + ["#bbbbbb"] * rest + [BAD] * len(found.least)
    axes.set_axis_off()
    inner = axes.inset_axes((0.2, 0.17, 0.78, 0.75))  # leaves room for its labels
    inner.bar(range(1, len(weights) + 1), weights, width=1.0, color=colours)
    inner.set_xlim(0.5, len(weights) + 0.5)
    inner.set_xlabel("match, by confidence", fontsize=8)
    inner.set_ylabel("confidence over the largest", fontsize=8)
    inner.tick_params(labelsize=7)
    inner.spines[["top", "right"]].set_visible(False)


def densecl(look: "Look") -> Section:
    """Every position's nearest neighbour, whether geometry agrees, and how the hits spread."""
    found = matches.neighbours(look.pair)
    options = look.options.PIXPRO
    same = matches.geometry(look.pair, options.THRESHOLD, options.FRAME)
    right = [bool(same[match.query, match.key]) for match in found]
    shown = spread(range(len(found)), MANY)

    def draw(side: SideBySide) -> None:
        colours = [GOOD if right[i] else BAD for i in shown]
        lines(side, look, [found[i] for i in shown], colours, width=0.9)

    hits = matches.hits(found, look.grid)
    title = f"nearest neighbours of all {len(found)} positions{drawn(len(shown), len(found))}"
    legend = (
        (GOOD, f"shows the same place ({sum(right)})"),
        (BAD, f"shows another place ({len(right) - sum(right)})"),
    )
    pixels = pixels_of(look)
    similar = torch.tensor([match.weight for match in found]).view(look.grid)
    low, high = float(similar.min()), float(similar.max())
    row = [
        panel_of_pair(look, title, draw, legend=legend),
        Panel(
            "view 1: cosine with the neighbour",
            partial(heat, pixels=pixels[0], values=similar, low=low, high=high),
            legend=((DARK, f"least alike ({low:.2f})"), (BRIGHT, f"most alike ({high:.2f})")),
            sheet=False,
        ),
        Panel(
            f"view 2: {int((hits > 0).sum())} of {hits.numel()} positions are hit",
            partial(heat, pixels=pixels[1], values=hits, high=float(hits.max())),
            legend=((DARK, "nobody's neighbour"), (BRIGHT, f"neighbour of {int(hits.max())}")),
            sheet=False,
        ),
    ]
    return Section("DenseCL", "each position's positive is its nearest neighbour", [row])


def scfs(look: "Look") -> Section:
    """Local crops, and what each finds in view 1 (SCFS's Figure 3)."""
    found = matches.searches(look.crops, look.query, look.local, look.views[0])
    low = min(float(each.attention.min()) for each in found)
    high = max(float(each.attention.max()) for each in found)
    whole = look.pixels(look.views[0]).numpy()
    panels = []
    for number, (each, crop) in enumerate(zip(found, look.local, strict=True), 1):
        sheet = number <= 2
        draw = partial(show_pixels, pixels=look.pixels(crop).numpy(), colour=LOCAL)
        panels.append(Panel(f"local crop {number}", draw, columns=2, sheet=sheet))
        draw = partial(searched, pixels=whole, found=each, low=low, high=high)
        title = f"in view 1 ({each.share:.0%} lies there)"
        panels.append(Panel(title, draw, columns=2, sheet=sheet))
    text = (
        "a local crop looks for itself in view 1: cosine of its mean feature with every position; "
        "green: where it was cut"
    )
    half = len(panels) // 2
    note = f"dark {low:.2f}, bright {high:.2f}"
    return Section("SCFS", text, [panels[:half], panels[half:]], note)
