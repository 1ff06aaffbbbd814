"""Figures: what an object is before it is drawn. Parts in front of parts, joints between them.

Coordinates are local to the figure: x to the right, y down, any unit.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Material:
    """A colour, and a second one laid over it in a pattern of ``period`` figure lengths."""

    color: np.ndarray  # [3], 0 to 1
    second: np.ndarray | None = None
    pattern: str = "plain"  # a key of textures.PATTERNS
    period: float = 0.1


@dataclass
class Part:
    """A polygon ``points [n, 2]``, or a limb: two points and a radius at each."""

    name: str
    material: str
    points: np.ndarray
    radii: tuple[float, float] | None = None


@dataclass
class Keypoint:
    """A joint; it can be seen where one of ``parts`` lies on top, if it faces the viewer."""

    point: np.ndarray  # [2]
    parts: tuple[str, ...]
    faces_viewer: bool = True


@dataclass
class Figure:
    """An articulated object of class ``category``; its parts are listed from back to front."""

    category: str
    pose: str = "Unspecified"  # as VOC names it
    grounded: bool = True  # stands on the ground
    materials: dict[str, Material] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    keypoints: list[Keypoint] = field(default_factory=list)

    def polygon(self, material: str, points, name: str = "") -> None:
        self.parts.append(Part(name or material, material, np.asarray(points, float)))

    def limb(self, material: str, a, b, ra: float, rb: float | None = None, name: str = "") -> None:
        """A rounded bar from ``a`` to ``b`` whose radius goes from ``ra`` to ``rb``."""
        radii = (ra, ra if rb is None else rb)
        self.parts.append(Part(name or material, material, np.asarray([a, b], float), radii))

    def oval(
        self, material: str, center, rx: float, ry: float, angle: float = 0.0, name: str = ""
    ) -> None:
        """An ellipse turned by ``angle`` radians."""
        turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        points = np.stack([rx * np.cos(turn), ry * np.sin(turn)], 1) @ rotation(angle).T
        self.polygon(material, points + np.asarray(center, float), name)

    def transform(self, matrix: np.ndarray) -> None:
        """Apply a 2 × 2 matrix about the origin; radii scale by the root of its determinant."""
        scale = abs(np.linalg.det(matrix)) ** 0.5
        for part in self.parts:
            part.points = part.points @ matrix.T
            if part.radii:
                part.radii = (part.radii[0] * scale, part.radii[1] * scale)
        for keypoint in self.keypoints:
            keypoint.point = keypoint.point @ matrix.T

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The corners of the box around all parts: minimum and maximum [2]."""
        low, high = [], []
        for part in self.parts:
            radii = np.asarray(part.radii or (0.0,))[:, None]
            low.append((part.points - radii).min(0))
            high.append((part.points + radii).max(0))
        return np.min(low, 0), np.max(high, 0)


def rotation(angle: float) -> np.ndarray:
    """The matrix [2, 2] that turns by ``angle`` radians (clockwise on the screen, y down)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def limb_outline(a: np.ndarray, b: np.ndarray, ra: float, rb: float) -> np.ndarray:
    """The outline [n, 2] of a limb: a half circle around each end."""
    heading = np.arctan2(b[1] - a[1], b[0] - a[0])
    turn = np.linspace(np.pi / 2, 3 * np.pi / 2, 9)
    around_a = a + ra * np.stack([np.cos(heading + turn), np.sin(heading + turn)], 1)
    around_b = b - rb * np.stack([np.cos(heading + turn), np.sin(heading + turn)], 1)
    return np.concatenate([around_a, around_b])
