"""Masks as run lengths, and what polygons and masks cover."""

import numpy as np

from .model import Box


def runs(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE of a mask ``[h, w]``: run lengths down the columns, of 0 first."""
    height, width = mask.shape
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=flat.size).tolist()
    return {"size": [height, width], "counts": [0, *counts] if flat.size and flat[0] else counts}


def mask_of(rle: dict) -> np.ndarray:
    """The mask ``[h, w]``, bool, of an RLE; ImportError of a compressed one without pycocotools."""
    (height, width), counts = rle["size"], rle["counts"]
    if isinstance(counts, list):
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape((height, width), order="F")
    from pycocotools import mask

    return mask.decode({"size": [height, width], "counts": counts.encode()}).astype(bool)


def box_of(mask: np.ndarray) -> Box:
    """The edges of a mask's pixels; it must have one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        float(columns[0]),
        float(rows[0]),
        float(columns[-1]) + 1,
        float(rows[-1]) + 1,
    )


def hull(polygons: list[list[float]]) -> Box:
    """The box around polygons."""
    xs = [x for each in polygons for x in each[::2]]
    ys = [y for each in polygons for y in each[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def around(points: list[float]) -> Box:
    """The box around points ``[x, y, …]``, of a pixel at least."""
    x1, y1, x2, y2 = hull([points])
    wide, high = max(1 - (x2 - x1), 0) / 2, max(1 - (y2 - y1), 0) / 2
    return x1 - wide, y1 - high, x2 + wide, y2 + high


def enclosed(polygon: list[float]) -> float:
    """The area of a polygon in pixels (Gauss' formula)."""
    x, y = np.array(polygon[::2]), np.array(polygon[1::2])
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
