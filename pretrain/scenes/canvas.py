"""The picture while it is painted: colours, and what covers what, from back to front."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Layer:
    """One painted thing: its label's name, all of it that is in the image, and its instance.

    ``mask`` is bool [S, S], also where later layers cover it; ``instance`` counts from 0, or is
    None for stuff. Masks of things are one 4-connected piece without holes.
    """

    label: str
    mask: np.ndarray
    instance: int | None = None


class Canvas:
    """``color [S, S, 3]`` float, and the layers painted so far."""

    def __init__(self, size: int):
        self.size = size
        self.color = np.zeros((size, size, 3), np.float32)
        self.layers: list[Layer] = []

    def paint(self, label: str, mask, colors, alpha=None) -> None:
        """Lay ``colors [S, S, 3]`` over the picture where ``mask`` (or, softly, ``alpha``) is."""
        share = (mask if alpha is None else alpha).astype(np.float32)[..., None]
        self.color += share * (colors - self.color)
        self.layers.append(Layer(label, mask))

    def paint_patch(self, label: str, patch, instance: int) -> None:
        """Lay a rendered figure over the picture."""
        image, inner = patch.inside(self.size)
        below = self.color[image]
        below += patch.alpha[inner][..., None] * (patch.color[inner] - below)
        self.layers.append(Layer(label, patch.full_mask(self.size), instance))

    def darken(self, factor: np.ndarray) -> None:
        """Multiply the picture by ``factor [S, S]`` (a shadow): nothing is covered."""
        self.color *= factor[..., None]

    def order(self) -> np.ndarray:
        """The number (from 1) of the layer that is seen at each pixel: int32 [S, S]."""
        seen = np.zeros((self.size, self.size), np.int32)
        for number, layer in enumerate(self.layers, start=1):
            seen[layer.mask] = number
        return seen
