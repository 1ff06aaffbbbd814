"""Trees like that of Cityscapes: ``leftImg8bit/SPLIT/CITY/a_leftImg8bit.png`` and, of each,
``gtFine/SPLIT/CITY/a_gtFine_…``: label images, objects and polygons."""

from functools import partial
from pathlib import Path

import numpy as np

from . import label_images
from .model import AnnotationSource, Category, Dataset, Object
from .reading import BadFile, below, json_of, number, picture
from .shapes import box_of, hull, runs

IMAGES, IMAGE_END = "leftImg8bit", "_leftImg8bit"
SPLITS = {"train": "train", "val": "val", "test": "test"}
TRUTH = ("gtFine", "gtCoarse", "gt")
LABELS = ("labelTrainIds", "labelIds")
FIRST_OBJECT = 1000  # from here on a value is 1000 times a class and the number of its object
NOTHING = ("ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground")
# fmt: off
NAMES = (  # by labelIds
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic",
    "ground", "road", "sidewalk", "parking", "rail track", "building", "wall", "fence",
    "guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan",
    "trailer", "train", "motorcycle", "bicycle",
)
# fmt: on


def recognise(path: Path) -> list[AnnotationSource]:
    """The splits of such a tree; none where it is another one."""
    truth = next((path / name for name in TRUTH if (path / name).is_dir()), None)
    if truth is None or not (path / IMAGES).is_dir():
        return []
    found = []
    for folder, split in SPLITS.items():
        images = below(path / IMAGES / folder) if (path / IMAGES / folder).is_dir() else []
        stems = {image: image.stem.removesuffix(IMAGE_END) for image in images}
        files = {
            image: truth / folder / image.parent.relative_to(path / IMAGES / folder) / stem
            for image, stem in stems.items()
        }
        if not images or not any(_of(file, truth, "*") for file in list(files.values())[:1]):
            continue
        labelled = None
        for kind in LABELS:
            pairs = [(image, _of(file, truth, f"{kind}.png")) for image, file in files.items()]
            if all(labels is not None for _, labels in pairs):
                labelled = ([(image, labels) for image, labels in pairs if labels], None)
                break
        reader = partial(_read, files=files, truth=truth)
        found.append(AnnotationSource("Cityscapes", path, split, reader, labelled))
    return found


def _of(file: Path, truth: Path, end: str) -> Path | None:
    """The one file ``a_gtFine_END``."""
    return next(iter(sorted(file.parent.glob(f"{file.name}_{truth.name}_{end}"))), None)


def _read(data: Dataset, files: dict[Path, Path], truth: Path) -> None:
    """The objects: of ``instanceIds`` those that are counted, else the polygons."""
    known: dict[str, int] = {}
    for image, file in files.items():
        objects, polygons = (_of(file, truth, e) for e in ("instanceIds.png", "polygons.json"))
        used = objects or polygons
        if used is None:
            data.fault(image, "", f"{file.name} has neither instanceIds nor polygons in {truth}")
            continue
        if (found := picture(data, image, used, "")) is None:
            continue
        try:
            for name, made in _counted(used) if objects else _outlined(used):
                made.category = known.setdefault(name, len(known))
                found.objects.append(made)
        except BadFile as error:
            data.fault(used, "", str(error))
            continue
        data.pictures.append(found)
    data.categories += map(Category, known)


def _counted(file: Path) -> list[tuple[str, Object]]:
    values = label_images.pixels(file)
    found = []
    for value in np.unique(values[values >= FIRST_OBJECT]).tolist():
        mask, label = values == value, value // FIRST_OBJECT
        name = NAMES[label] if label < len(NAMES) else str(label)
        found.append((name, Object(0, box_of(mask), mask=runs(mask), at=f"value {value}")))
    return found


def _outlined(file: Path) -> list[tuple[str, Object]]:
    content = json_of(file)
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise BadFile("it has no list 'objects', as Cityscapes' files have")
    found = []
    for place, each in enumerate(content["objects"]):
        outline = each.get("polygon") if isinstance(each, dict) else None
        label = each.get("label") if isinstance(each, dict) else None
        if not isinstance(label, str) or not isinstance(outline, list) or len(outline) < 3:
            raise BadFile(f"object {place} has no label, or no polygon of three points")
        if not all(isinstance(point, list) and len(point) == 2 for point in outline):
            raise BadFile(f"object {place}: its polygon is no list of x, y")
        flat = [number(value, "a coordinate") for point in outline for value in point]
        if label not in NOTHING and not label_images.is_background(label):
            found.append((label, Object(0, hull([flat]), [flat], at=f"object {place}")))
    return found
