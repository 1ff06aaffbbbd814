"""Animals seen from the side, facing right: bird, dog, horse, sheep. Lengths in body lengths."""

import numpy as np

from .figure import Figure, Material, rotation
from .textures import color

DARK = np.array([0.06, 0.05, 0.06])
GAITS = {"stand": 0.12, "walk": 0.45, "run": 0.85}  # how far a leg swings, radians


def _coat(rng, first: np.ndarray, second: np.ndarray, pattern: str) -> Material:
    return Material(first, second, pattern, rng.uniform(0.1, 0.3))


def _leg(figure: Figure, material: str, root, lengths, radii, swing: float, bend: float) -> None:
    """A leg of two segments and a foot: ``swing`` is forward from the vertical."""
    root = np.asarray(root, float)
    knee = root + lengths[0] * np.array([np.sin(swing), np.cos(swing)])
    foot = knee + lengths[1] * np.array([np.sin(swing - bend), np.cos(swing - bend)])
    figure.limb("foot", foot, foot + np.array([radii[2] * 0.8, 0.0]), radii[2] * 1.15)
    figure.limb(material, knee, foot, radii[1], radii[2])
    figure.limb(material, root, knee, radii[0], radii[1])


def _legs(figure: Figure, rng, material: str, roots, lengths, radii, far: bool) -> None:
    """A hind and a fore leg, the pair on the ``far`` or the near side of the body."""
    reach = GAITS[str(rng.choice(list(GAITS)))]
    shift = -0.04 if far else 0.03
    for root in roots:
        swing = rng.uniform(-reach, reach)
        _leg(
            figure,
            "far_" + material if far else material,
            (root[0] + shift, root[1]),
            lengths,
            radii,
            swing,
            rng.uniform(0, 0.25 + abs(swing)),
        )


def _with_far_side(materials: dict[str, Material], name: str) -> dict[str, Material]:
    """Add the darker material of the legs on the far side."""
    near = materials[name]
    second = None if near.second is None else near.second * 0.65
    materials["far_" + name] = Material(near.color * 0.65, second, near.pattern, near.period)
    return materials


def horse(rng) -> Figure:
    """A horse: long legs and neck, a mane and a hanging tail."""
    figure = Figure("horse", pose="Right")
    coat = color(rng, (0.02, 0.11), (0.15, 0.75), (0.15, 0.95))
    mane = coat * 0.3 if rng.random() < 0.7 else np.clip(coat * 1.6, 0, 1)
    pattern = str(rng.choice(["plain", "patches", "fur"]))
    second = np.array([0.93, 0.9, 0.85]) if pattern == "patches" else coat * 0.75
    figure.materials = _with_far_side(
        {
            "coat": _coat(rng, coat, second, pattern),
            "mane": Material(mane, mane * 0.6, "fur", 0.05),
            "foot": Material(DARK),
            "eye": Material(DARK),
        },
        "coat",
    )
    roots, lengths, radii = ((-0.36, 0.08), (0.3, 0.08)), (0.32, 0.33), (0.09, 0.048, 0.034)
    neck_angle = rng.uniform(-1.15, 0.45)  # up to grazing
    base = np.array([0.34, -0.1])
    poll = base + 0.5 * np.array([np.cos(neck_angle), np.sin(neck_angle)])
    muzzle_angle = neck_angle + rng.uniform(1.1, 1.6)
    muzzle = poll + 0.3 * np.array([np.cos(muzzle_angle), np.sin(muzzle_angle)])
    sway = rng.uniform(-0.1, 0.5)
    dock = np.array([-0.5, -0.12])
    tip = dock + 0.5 * np.array([-np.sin(sway), np.cos(sway)])
    figure.limb("mane", dock, dock + np.array([-0.08, 0.04]), 0.04, 0.06)
    figure.limb("mane", dock + np.array([-0.08, 0.04]), tip, 0.065, 0.03)
    _legs(figure, rng, "coat", roots, lengths, radii, far=True)
    back = rotation(neck_angle) @ np.array([0.0, -0.075])
    figure.limb("mane", base + back * 1.6, poll + back, 0.08, 0.06)
    figure.limb("coat", base - np.array([0.06, -0.05]), poll, 0.16, 0.085)
    figure.limb("coat", (-0.32, -0.02), (0.3, 0.0), 0.21, 0.195)
    figure.limb("coat", poll, muzzle, 0.088, 0.055)
    for shift in (-0.03, 0.03):
        root = poll + back * 0.7 + rotation(neck_angle) @ np.array([0.02 + shift, 0.0])
        up = rotation(neck_angle) @ np.array([0.05, -0.1])
        figure.limb("coat", root, root + up, 0.028, 0.006)
    figure.oval("eye", poll + (muzzle - poll) * 0.3, 0.018, 0.018)
    _legs(figure, rng, "coat", roots, lengths, radii, far=False)
    return figure


def dog(rng) -> Figure:
    """A dog: short legs, a snout, an upright tail, ears that hang or stand, a collar."""
    figure = Figure("dog", pose="Right")
    coat = color(rng, (0.03, 0.12), (0.2, 0.8), (0.2, 0.95))
    pattern = str(rng.choice(["plain", "patches", "fur", "spots"]))
    second = DARK + 0.08 if rng.random() < 0.5 else np.array([0.95, 0.92, 0.86])
    figure.materials = _with_far_side(
        {
            "coat": _coat(rng, coat, coat * 0.7 if pattern == "fur" else second, pattern),
            "ear": Material(coat * 0.5),
            "nose": Material(DARK),
            "collar": Material(color(rng, saturation=(0.8, 1.0), value=(0.6, 1.0))),
            "tongue": Material(np.array([0.9, 0.4, 0.45])),
        },
        "coat",
    )
    figure.materials["foot"] = Material(coat * 0.8)
    roots, lengths, radii = ((-0.27, 0.04), (0.24, 0.04)), (0.2, 0.2), (0.075, 0.045, 0.036)
    lift = rng.uniform(-0.25, 0.1)  # of the head
    neck = np.array([0.3, -0.08])
    head = np.array([0.45, -0.3 + lift])
    tail, curl = np.array([-0.4, -0.08]), rng.uniform(-0.6, 0.5)
    middle = tail + 0.2 * np.array([-np.cos(0.7 + curl), -np.sin(0.7 + curl)])
    end = middle + 0.2 * np.array([-np.cos(1.3 + curl), -np.sin(1.3 + curl)])
    figure.limb("coat", tail, middle, 0.05, 0.04)
    figure.limb("coat", middle, end, 0.04, 0.02)
    _legs(figure, rng, "coat", roots, lengths, radii, far=True)
    figure.limb("coat", (-0.28, -0.01), (0.22, -0.01), 0.135, 0.165)
    figure.limb("coat", neck, head, 0.13, 0.1)
    figure.limb("collar", neck * 0.5 + head * 0.5 + np.array([-0.09, -0.03]),
                neck * 0.5 + head * 0.5 + np.array([0.09, 0.05]), 0.025)  # fmt: skip
    if rng.random() < 0.4:
        figure.limb("tongue", head + (0.17, 0.08), head + (0.18, 0.16), 0.025)
    figure.limb("coat", head + np.array([0.03, 0.03]), head + np.array([0.23, 0.06]), 0.09, 0.05)
    figure.oval("coat", head, 0.125, 0.115)
    figure.oval("nose", head + np.array([0.27, 0.03]), 0.032, 0.028)
    figure.oval("nose", head + np.array([0.06, -0.03]), 0.02, 0.02)
    if rng.random() < 0.5:  # hanging
        figure.limb("ear", head + (-0.06, -0.06), head + (-0.1, 0.12), 0.045, 0.05)
    else:
        figure.polygon("ear", [head + (-0.11, -0.05), head + (-0.07, -0.25), head + (0.02, -0.1)])
    _legs(figure, rng, "coat", roots, lengths, radii, far=False)
    return figure


def sheep(rng) -> Figure:
    """A sheep: a bumpy fleece on thin dark legs, a bare face."""
    figure = Figure("sheep", pose="Right")
    wool = color(rng, (0.06, 0.16), (0.02, 0.2), (0.75, 1.0))
    if rng.random() < 0.15:
        wool = wool * 0.3  # the black sheep
    face = color(rng, (0.03, 0.1), (0.1, 0.4), (0.08, 0.35))
    if rng.random() < 0.3:
        face = np.clip(wool * 0.9 + 0.08, 0, 1)
    figure.materials = _with_far_side(
        {
            "wool": Material(wool, wool * 0.72, "fur", 0.06),
            "face": Material(face),
            "foot": Material(DARK),
            "eye": Material(np.array([0.95, 0.9, 0.6])),
        },
        "face",
    )
    roots, lengths, radii = ((-0.25, 0.16), (0.22, 0.16)), (0.15, 0.15), (0.045, 0.032, 0.028)
    _legs(figure, rng, "face", roots, lengths, radii, far=True)
    _legs(figure, rng, "face", roots, lengths, radii, far=False)
    rx, ry = rng.uniform(0.36, 0.42), rng.uniform(0.22, 0.27)
    figure.oval("wool", (0, 0), rx, ry)
    bumps = int(rng.integers(11, 16))
    for turn in np.arange(bumps) * 2 * np.pi / bumps + rng.uniform(0, 1):
        radius = rng.uniform(0.08, 0.11)
        figure.oval("wool", (rx * np.cos(turn), ry * np.sin(turn)), radius, radius)
    drop = rng.uniform(-0.22, 0.25)  # of the head, towards the grass
    head = np.array([0.5, -0.05 + drop])
    muzzle = head + 0.15 * np.array([np.cos(0.6 + drop), np.sin(0.6 + drop)])
    figure.limb("wool", (0.34, -0.06), head, 0.15, 0.11)
    figure.limb("far_face", head + (-0.05, -0.06), head + (-0.15, -0.01), 0.03, 0.035)
    figure.limb("face", head, muzzle, 0.09, 0.06)
    figure.oval("wool", head + (-0.04, -0.08), 0.07, 0.055)
    figure.oval("eye", head + (0.04, -0.02), 0.018, 0.02)
    return figure


def bird(rng) -> Figure:
    """A bird: flying with beating wings, or standing."""
    flying = bool(rng.random() < 0.5)
    figure = Figure("bird", pose="Right", grounded=not flying)
    body = color(rng, (0.45, 1.1), (0.45, 1.0), (0.3, 0.95))
    wing = color(rng, saturation=(0.2, 0.9)) if rng.random() < 0.5 else body * 0.6
    figure.materials = {
        "body": Material(body, body * 0.8, "fur", 0.08),
        "belly": Material(np.clip(body * 0.5 + 0.5, 0, 1)),
        "wing": Material(wing, wing * 0.55, "bands", rng.uniform(0.08, 0.16)),
        "far_wing": Material(wing * 0.6, wing * 0.35, "bands", 0.12),
        "beak": Material(color(rng, (0.05, 0.14), (0.8, 1.0), (0.8, 1.0))),
        "eye": Material(DARK),
    }
    tilt = rng.uniform(-0.25, 0.25) if flying else rng.uniform(-0.8, -0.2)
    turn = rotation(tilt)

    def at(x: float, y: float) -> np.ndarray:
        return turn @ np.array([x, y])

    if flying:
        _wing(figure, "far_wing", at(0.08, -0.05), rng.uniform(-2.0, -1.2), rng.uniform(0.35, 0.5))
    else:
        for shift in (-0.03, 0.06):
            foot = np.array([shift + rng.uniform(-0.03, 0.03), 0.36])
            figure.limb("beak", (shift, 0.1), foot, 0.018)
            figure.limb("beak", foot, foot + (0.07, 0.0), 0.016)
    fan = rng.uniform(0.06, 0.14)
    figure.polygon("wing", [at(-0.2, -0.04), at(-0.55, -fan), at(-0.58, fan * 0.8), at(-0.2, 0.05)])
    figure.oval("body", (0, 0), 0.3, 0.155, tilt)
    figure.oval("belly", at(0.05, 0.055), 0.19, 0.085, tilt)
    head = at(0.27, -0.1) + np.array([0.02, -0.04])
    figure.limb("body", at(0.16, -0.03), head, 0.11, 0.1)
    beak = rng.uniform(0.12, 0.28)
    figure.polygon(
        "beak", [head + (0.07, -0.045), head + (0.08 + beak, 0.02), head + (0.06, 0.055)]
    )
    figure.oval("eye", head + (0.04, -0.02), 0.022, 0.022)
    if flying:
        _wing(figure, "wing", at(0.0, -0.04), rng.uniform(-2.3, 2.3), rng.uniform(0.4, 0.6))
    else:
        figure.polygon("wing", [at(0.14, -0.08), at(0.1, 0.07), at(-0.2, 0.08), at(-0.42, -0.02)])
    return figure


def _wing(figure: Figure, material: str, root: np.ndarray, angle: float, length: float) -> None:
    """A spread wing from the shoulder ``root``: two segments of feathers."""
    shape = np.array(
        [[0.12, 0.0], [0.09, 0.45], [-0.1, 1.0], [-0.2, 0.85], [-0.24, 0.4], [-0.2, 0]]
    )
    spread = shape * np.array([0.9, -length * 1.3])
    beat = np.array([[1.0, 0.0], [0.0, np.sin(-angle) if abs(np.sin(angle)) > 0.5 else 0.6]])
    figure.polygon(material, root + spread @ beat.T @ rotation(-0.25).T)
