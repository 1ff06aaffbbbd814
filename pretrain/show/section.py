"""The part of a picture that a method has, and what all of them share."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .matches import Match, Search
from .panels import LOCAL, PAIR_ASPECT, Panel, SideBySide, centre, heat, rectangle

if TYPE_CHECKING:
    from .look import Look

FEW, MANY = 6, 100  # lines of a panel: told apart by colour, or only a crowd
NAME_LENGTH = 60


@dataclass(frozen=True)
class Section:
    """The part of a picture that a method has: its name, what it does, rows of panels."""

    name: str
    text: str
    rows: list[list[Panel]]
    note: str = ""  # on this image


def pixels_of(look: "Look") -> list[Any]:
    """The two views as people see them, ``[H, W, 3]`` in 0 to 1."""
    return [look.pixels(view).numpy() for view in look.views]


def panel_of_pair(look: "Look", title: str, draw: Callable, columns: int = 6, **more) -> Panel:
    """A panel of both views side by side; ``draw(side_by_side)`` adds to them."""
    views = tuple(pixels_of(look))

    def both(axes):
        draw(SideBySide(axes, views).draw())

    return Panel(title, both, columns=columns, aspect=PAIR_ASPECT, **more)


def lines(side: SideBySide, look: "Look", found: list[Match], colours: list, **style) -> None:
    """A line for every match, between the centres of its cells."""
    for match, colour in zip(found, colours, strict=True):
        start, end = (
            centre(position, look.grid, view)
            for position, view in zip(match[:2], side.views, strict=True)
        )
        side.line(start, end, colour, **style)


def searched(axes: Any, pixels: Any, found: Search, low: float, high: float) -> None:
    """What a local crop finds in a view, and in ``LOCAL`` where it was cut."""
    heat(axes, pixels, found.attention, low, high)
    if found.share > 0:
        rectangle(axes, found.box, LOCAL, 2)


def drawn(shown: int, of: int) -> str:
    """What a title adds where not all is drawn."""
    return "" if shown == of else f" ({shown} drawn)"


def shown(name: str, length: int = NAME_LENGTH) -> str:
    """A name of a file as a font can show it, and not too long."""
    name = re.sub(r"[\x00-\x1f]", "�", name.encode("utf-8", "replace").decode())
    return name if len(name) <= length else f"{name[: length - 1]}…"
