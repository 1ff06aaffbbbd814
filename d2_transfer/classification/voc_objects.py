"""The objects of VOC's detection sets, one image each: labels for the miniatures on scenes."""

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from densessl.annotations.reading import xml_of
from densessl.core.errors import InputError
from densessl.core.files import read_text

from .images import Images, packed

SPLITS = (  # training, test: those of voc_det_c4
    (("VOC2007", "trainval"), ("VOC2012", "trainval")),
    (("VOC2007", "test"),),
)
CONTEXT = 1.2  # side of the square around an object over its longer side
LEAST = 8  # pixels of the longer side
EXPECTED = "ImageSets/Main/trainval.txt (VOC2007: test.txt too), Annotations/, JPEGImages/"


def read_voc_objects(root: Path) -> tuple[Images, Images]:
    """Squares around the objects of VOC07+12 trainval, and of VOC07 test.

    Objects marked difficult and those below 8 pixels are left out. Raises InputError for a missing
    or unreadable list or annotation, and for a class that only the test set has.
    """
    found = [[row for year, name in split for row in _rows(root, year, name)] for split in SPLITS]
    classes = tuple(sorted({row[1] for row in found[0]}))
    if unseen := sorted({row[1] for row in found[1]} - set(classes)):
        raise InputError(f"{root / 'VOC2007'}: no training image shows a {unseen[0]}")
    splits = []
    for rows, title in zip(found, ("trainval", "test"), strict=True):
        if not rows:
            raise InputError(f"{root}: the {title} images have no objects")
        labels = np.array([classes.index(row[1]) for row in rows], np.int64)
        boxes = np.array([row[2] for row in rows], np.float32)
        where = f"objects of VOC's {title} in {root}"
        splits.append(Images(where, root, packed([row[0] for row in rows]), labels, classes, boxes))
    return splits[0], splits[1]


def _rows(root: Path, year: str, split: str) -> list[tuple[str, str, list[float]]]:
    """(image below ``root``, class, square) of each object."""
    listed = root / year / "ImageSets" / "Main" / f"{split}.txt"
    try:
        names = read_text(listed).split()
    except OSError:
        raise InputError(f"the list {listed} is not there") from None
    except UnicodeDecodeError as error:
        raise InputError(f"the list {listed} is no text: {error}") from None
    rows = []
    for name in names:
        file = root / year / "Annotations" / f"{name}.xml"
        try:
            objects = xml_of(file).findall("object")
            for each in objects:
                square = _square(each)
                if each.findtext("difficult", "0").strip() != "1" and square:
                    image = f"{year}/JPEGImages/{name}.jpg"
                    rows.append((image, each.findtext("name", "").strip(), square))
        except (ValueError, AttributeError) as error:  # BadFile's, too
            raise InputError(f"{file} is not VOC's annotation of an image: {error}") from None
    return rows


def _square(each: Element) -> list[float] | None:
    """x1, y1, x2, y2 in pixel edges around an object's box; None for one that is too small."""
    x1, y1, x2, y2 = (
        float(each.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")
    )
    x1, y1 = x1 - 1, y1 - 1  # VOC counts pixels from 1, both ends included
    side = max(x2 - x1, y2 - y1)
    if side < LEAST:
        return None
    half, x, y = CONTEXT * side / 2, (x1 + x2) / 2, (y1 + y2) / 2
    return [x - half, y - half, x + half, y + half]
