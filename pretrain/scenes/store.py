"""Writing the files of a set: the same bytes for the same scene, whoever writes them."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

JPEG_QUALITY = 92


def number(split: str, index: int) -> int:
    """The number that names a scene in every layout, different over the splits."""
    return index + 1 + (1_000_000 if split == "val" else 0)


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an RGB image uint8 [H, W, 3] as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may share its content with links from an interrupted run
    Image.fromarray(image).save(path, "JPEG", quality=JPEG_QUALITY)


def save_png(path: Path, values: np.ndarray, palette: list[int] | None = None) -> None:
    """Write uint8 or uint16 [H, W], or colours uint8 [H, W, 3 or 4], as PNG.

    ``palette`` (r, g, b, r, g, b, …) makes it an indexed image, as VOC's masks are.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path, "PNG", compress_level=4)


def link(source: Path, target: Path) -> None:
    """Make ``target`` another name of ``source``, or a copy where links are not possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
