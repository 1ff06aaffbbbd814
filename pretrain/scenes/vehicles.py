"""Vehicles seen from the side, facing right: bicycle, car, bus. Lengths in vehicle lengths."""

import numpy as np

from .figure import Figure, Material
from .textures import color

RUBBER = np.array([0.07, 0.07, 0.08])
CHROME = np.array([0.72, 0.74, 0.77])
RED, YELLOW = np.array([0.85, 0.1, 0.08]), np.array([1.0, 0.93, 0.6])


def _glass(rng) -> Material:
    tone = color(rng, (0.5, 0.62), (0.1, 0.4), (0.2, 0.85))
    return Material(tone, np.clip(tone * 1.5, 0, 1), "patches", 0.3)


def _wheel(figure: Figure, center, radius: float, turn: float) -> None:
    """A car's wheel, its five spokes turned by ``turn``."""
    center = np.asarray(center, float)
    figure.oval("tyre", center, radius, radius)
    figure.oval("hub", center, radius * 0.58, radius * 0.58)
    for spoke in turn + np.arange(5) * 2 * np.pi / 5:
        reach = 0.5 * radius * np.array([np.cos(spoke), np.sin(spoke)])
        figure.limb("tyre", center, center + reach, radius * 0.06)


def car(rng) -> Figure:
    """A car: saloon, hatchback, estate or pickup; two wheels, a cabin of glass, lights."""
    figure = Figure("car", pose="Right")
    paint = color(rng, saturation=(0.0, 1.0), value=(0.15, 1.0))
    figure.materials = {
        "paint": Material(paint, paint * 0.9),
        "trim": Material(paint * 0.45),
        "glass": _glass(rng),
        "tyre": Material(RUBBER),
        "hub": Material(CHROME),
        "lamp": Material(YELLOW),
        "rear": Material(RED),
    }
    deck, roof = rng.uniform(-0.25, -0.21), rng.uniform(-0.42, -0.36)
    front, hood = rng.uniform(0.12, 0.2), rng.uniform(0.02, 0.05)
    kind = str(rng.choice(["saloon", "hatchback", "estate", "pickup"]))
    tail = {"saloon": -0.33, "hatchback": -0.44, "estate": -0.48, "pickup": -0.12}[kind]
    slope = {"saloon": 0.12, "hatchback": 0.12, "estate": 0.03, "pickup": 0.02}[kind]
    cabin = [(tail, deck + 0.02), (tail + slope, roof), (front - 0.13, roof), (front, deck + 0.02)]
    figure.polygon("paint", cabin)
    figure.limb("paint", (tail + slope + 0.02, roof + 0.012), (front - 0.15, roof + 0.012), 0.02)
    figure.polygon(
        "paint",
        [(-0.5, -0.08), (-0.5, deck + 0.03), (-0.47, deck), (front, deck), (0.42, deck + hood),
         (0.49, deck + hood + 0.04), (0.5, -0.07), (0.47, -0.045), (-0.47, -0.045)],
    )  # fmt: skip
    pillar = (tail + slope + front - 0.13) / 2
    sill = deck + 0.008
    rear_edge, top = tail + slope * 0.55 + 0.03, roof + 0.032
    figure.polygon("glass", [(rear_edge - slope * 0.3, sill), (tail + slope + 0.015, top),
                             (pillar - 0.012, top), (pillar - 0.012, sill)])  # fmt: skip
    figure.polygon("glass", [(pillar + 0.012, sill), (pillar + 0.012, top), (front - 0.14, top),
                             (front - 0.03, sill)])  # fmt: skip
    for x in (pillar, front - 0.02):
        figure.limb("trim", (x, sill + 0.01), (x - 0.01, -0.07), 0.005)
    figure.limb("trim", (-0.46, -0.06), (0.46, -0.06), 0.018)
    figure.limb("trim", (pillar - 0.08, deck + 0.045), (pillar - 0.04, deck + 0.045), 0.007)
    figure.oval("lamp", (0.465, deck + hood + 0.055), 0.03, 0.022)
    figure.oval("rear", (-0.48, deck + 0.055), 0.02, 0.03)
    turn, radius = rng.uniform(0, 6.3), rng.uniform(0.09, 0.11)
    for x in (-0.3, 0.3):
        figure.oval("trim", (x, -0.05), radius * 1.2, radius * 1.2)
        _wheel(figure, (x, -0.03), radius, turn)
    figure.transform(np.diag([rng.uniform(0.8, 1.0), 1.0]))
    return figure


def bus(rng) -> Figure:
    """A bus: a tall box with a row of windows (two on a double-decker), doors, a painted band."""
    figure = Figure("bus", pose="Right")
    paint = color(rng, saturation=(0.3, 1.0), value=(0.45, 1.0))
    figure.materials = {
        "paint": Material(paint, paint * 0.92),
        "band": Material(color(rng), color(rng), "pales", rng.uniform(0.1, 0.4)),
        "glass": _glass(rng),
        "trim": Material(paint * 0.4),
        "tyre": Material(RUBBER),
        "hub": Material(CHROME * 0.8),
        "lamp": Material(YELLOW),
        "rear": Material(RED),
    }
    decks = 2 if rng.random() < 0.35 else 1
    height = 0.37 if decks == 1 else 0.56
    c = 0.03  # radius of the corners
    figure.polygon(
        "paint",
        [(-0.5, -0.05), (-0.5, -height + c), (-0.5 + c, -height), (0.5 - c, -height),
         (0.5, -height + 2 * c), (0.5, -0.05)],
    )  # fmt: skip
    panes, door = int(rng.integers(4, 8)), rng.uniform(0.3, 0.36)
    for deck in range(decks):
        top = -height + 0.05 + 0.2 * deck
        right = 0.46 if deck < decks - 1 else door - 0.04
        edges = np.linspace(-0.46, right, panes + 1)
        for left, end in zip(edges[:-1], edges[1:] - 0.02, strict=True):
            figure.polygon(
                "glass", [(left, top), (end, top), (end, top + 0.12), (left, top + 0.12)]
            )
    lower = -height + 0.05 + 0.2 * (decks - 1)
    figure.polygon("glass", [(door, lower), (door + 0.08, lower), (door + 0.08, -0.06),
                             (door, -0.06)])  # fmt: skip
    figure.polygon(
        "glass", [(0.46, lower), (0.5, lower), (0.5, lower + 0.16), (0.46, lower + 0.16)]
    )
    figure.polygon("band", [(-0.5, -0.165), (door - 0.02, -0.165), (door - 0.02, -0.115),
                            (-0.5, -0.115)])  # fmt: skip
    figure.limb("trim", (door + 0.04, lower + 0.01), (door + 0.04, -0.07), 0.004)
    figure.limb("trim", (-0.49, -0.055), (0.49, -0.055), 0.014)
    figure.oval("lamp", (0.485, -0.1), 0.018, 0.022)
    figure.oval("rear", (-0.49, -0.1), 0.014, 0.028)
    turn, radius = rng.uniform(0, 6.3), rng.uniform(0.06, 0.075)
    for x in (-0.3, 0.22):
        figure.oval("trim", (x, -0.05), radius * 1.2, radius * 1.2)
        _wheel(figure, (x, -0.035), radius, turn)
    figure.transform(np.diag([rng.uniform(0.75, 1.0), 1.0]))
    return figure


def bicycle(rng) -> Figure:
    """A bicycle: spoked wheels that one can see through, a frame, handlebars, turning cranks."""
    figure = Figure("bicycle", pose="Right")
    paint = color(rng, saturation=(0.5, 1.0), value=(0.35, 1.0))
    figure.materials = {
        "frame": Material(paint),
        "tyre": Material(RUBBER + rng.uniform(0, 0.15)),
        "spoke": Material(CHROME),
        "seat": Material(color(rng, (0.0, 0.1), (0.2, 0.8), (0.05, 0.4))),
    }
    radius = rng.uniform(0.2, 0.25)
    rear, front = np.array([-0.3, 0.0]), np.array([0.32, 0.0])
    crank = np.array([-0.04, 0.02])
    saddle = np.array([-0.13, rng.uniform(-0.36, -0.3)])
    steer = np.array([0.2, rng.uniform(-0.37, -0.32)])
    turn = rng.uniform(0, np.pi)
    for hub in (rear, front):
        for spoke in turn + np.arange(4) * np.pi / 4:
            reach = radius * np.array([np.cos(spoke), np.sin(spoke)])
            figure.limb("spoke", hub - reach, hub + reach, 0.004)
        rim = np.linspace(0, 2 * np.pi, 21)
        ring = hub + radius * np.stack([np.cos(rim), np.sin(rim)], 1)
        for a, b in zip(ring[:-1], ring[1:], strict=True):
            figure.limb("tyre", a, b, 0.023)
        figure.oval("tyre", hub, 0.025, 0.025)
    lower = crank if rng.random() < 0.3 else saddle * 0.75 + crank * 0.25  # the top tube's end
    for a, b in ((rear, crank), (rear, saddle), (crank, saddle), (lower, steer), (crank, steer)):
        figure.limb("frame", a, b, 0.019)
    figure.limb("frame", steer, front, 0.019)
    cycle = rng.uniform(0, 2 * np.pi)
    pedal = 0.1 * np.array([np.cos(cycle), np.sin(cycle)])
    figure.limb("spoke", crank - pedal, crank + pedal, 0.011)
    figure.oval("tyre", crank, 0.04, 0.04)
    for end in (crank - pedal, crank + pedal):
        figure.limb("seat", end - (0.025, 0), end + (0.025, 0), 0.013)
    up = saddle + (saddle - crank) * 0.18
    figure.limb("spoke", saddle, up, 0.013)
    figure.limb("seat", up + (-0.08, 0.0), up + (0.07, -0.005), 0.03, 0.014)
    head = steer + (steer - front) * 0.2
    figure.limb("spoke", steer, head, 0.015)
    grip = head + np.array([rng.uniform(-0.12, 0.1), rng.uniform(-0.04, 0.06)])
    figure.limb("seat", head, grip, 0.016, 0.022)
    figure.transform(np.diag([rng.uniform(0.75, 1.0), 1.0]))
    return figure
