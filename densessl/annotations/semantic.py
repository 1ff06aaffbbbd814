"""Any annotations as label images: the class of each pixel, for semantic segmentation."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from . import label_images, sources
from .label_images import VOID
from .model import AnnotatedImage, AnnotationSource, Category, Dataset, Object
from .reading import BadFile, picture
from .shapes import mask_of

BACKGROUND = "background"
MOST_CLASSES = 255


@dataclass
class LabelledPixels:
    """What :func:`recognise` reads beside a data set: of each image its label image.

    ``read``: numbers of classes, uint8 ``[h, w]``, 255 for none, by the image's path; ``files``:
    the label images that have these very numbers; ``names``: the classes that the numbers are of.
    """

    read: dict[Path, Callable[[], np.ndarray]] = field(default_factory=dict)
    files: dict[Path, Path] = field(default_factory=dict)
    names: dict[Path, tuple[str, ...]] = field(default_factory=dict)


def recognise(path, pixels: LabelledPixels) -> list[AnnotationSource]:
    """What lies at ``path``, as :func:`sources.recognise`; what is read gives an object of each
    class that an image shows, and its label image to ``pixels``.

    Label images keep their classes. Of polygons and masks, class 0 is the background, a crowd is
    nothing, and a smaller object lies on a larger one.
    """
    return [
        AnnotationSource(each.form, each.path, each.split, partial(_read, source=each, to=pixels))
        for each in sources.recognise(path)
    ]


def _read(data: Dataset, source: AnnotationSource, to: LabelledPixels) -> None:
    if source.labelled is None:
        _from_objects(data, source, to)
        return
    pairs, table_file = source.labelled
    try:
        table = label_images.ColourTable(table_file) if table_file else None
    except BadFile as error:
        data.fault(table_file or source.path, "", str(error))
        return
    values: set[int | str] = set(table.ordered() if table else ())
    held: list[tuple[AnnotatedImage, Path, list]] = []
    for image, labels in pairs:
        if (found := picture(data, image, labels, "")) is None:
            continue
        try:
            shown = label_images.shown(labels, table, found.size)
        except BadFile as error:
            data.fault(labels, "", str(error))
            continue
        values.update(shown)
        held.append((found, labels, shown))
    names = _names(values, table)
    if len(names) > MOST_CLASSES:
        data.fault(source.path, "", f"its label images have {len(names)} classes; allowed: 255")
        return
    data.categories += map(Category, names)
    same = names == [str(n) for n in range(len(names))] or (table and table.counts_from_0())
    for found, labels, shown in held:
        found.objects = [_whole(found, names.index(name)) for name in shown]
        to.read[found.path] = partial(label_images.numbers, labels, table, tuple(names))
        to.names[found.path] = tuple(names)
        if same and label_images.is_plain(labels):
            to.files[found.path] = labels
        data.pictures.append(found)


def _names(found: set, table) -> list[str]:
    listed = table.ordered() if table else []
    others = sorted(found - set(listed), key=label_images.in_order)
    return [*listed, *others]


def _whole(found: AnnotatedImage, category: int) -> Object:
    return Object(category, (0.0, 0.0, float(found.size[0]), float(found.size[1])))


def _from_objects(data: Dataset, source: AnnotationSource, to: LabelledPixels) -> None:
    """Boxes alone do not say which pixels: they are faults."""
    read = source.read()
    data.faults, data.remarks = read.faults, read.remarks
    data.categories = [Category(BACKGROUND), *read.categories]
    names = tuple(each.name for each in data.categories)
    for found in read.pictures:
        for each in found.objects:
            if not each.polygons and each.mask is None:
                data.fault(found.path, each.at, "it has a box alone; pixels need a polygon or mask")
        classes = {each.category + 1 for each in found.objects if not each.crowd} | {0}
        whole = [_whole(found, number) for number in sorted(classes)]
        data.pictures.append(AnnotatedImage(found.path, found.size, whole))
        to.read[found.path] = partial(painted, found)
        to.names[found.path] = names


def painted(found: AnnotatedImage) -> np.ndarray:
    """The objects of an image as a label image, uint8 ``[h, w]``: 0 is the background."""
    labels = np.zeros(found.size[::-1], np.uint8)
    covered = [(each, _covered(each, found.size)) for each in found.objects]
    for each, mask in sorted(covered, key=lambda pair: -int(pair[1].sum())):
        labels[mask] = VOID if each.crowd else each.category + 1
    return labels


def _covered(each: Object, size: tuple[int, int]) -> np.ndarray:
    if each.mask is not None:
        return mask_of(each.mask)
    from pycocotools import mask as coco_mask

    runs = coco_mask.merge(coco_mask.frPyObjects(each.polygons, *size[::-1]))
    return coco_mask.decode(runs).astype(bool)


def encoded(labels: np.ndarray) -> bytes:
    """A label image as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, "png")
    return stream.getvalue()
