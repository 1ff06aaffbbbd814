"""What lies at a path: which of the formats, and the splits that it has."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from densessl.core import files
from densessl.core.errors import InputError
from densessl.core.names import one_line
from densessl.decoding import is_image

from . import cityscapes, coco, cvat, label_images, labelme, voc, yolo
from .model import FORMS, AnnotationSource, Dataset
from .reading import BadFile, Pictures, below, json_of, xml_of

SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("valid", "val", "validation"), "val"
)
OF_IMAGES = ("images", "JPEGImages", "img", "imgs")
OF_MASKS = ("masks", "labels", "SegmentationClass", "annotations", "mask")
COCO_NAMES = ("_annotations.coco.json", "labels.json", "result.json")  # Roboflow, FiftyOne, …
OF_OBJECTS = "instances_"  # where there are other JSON files of the same images
PEEKED = 3  # files of a kind that are opened to tell what they are
OBJECTS = "SegmentationObject"
MASK_ENDS = ("_mask.png", "_masks.png", "_label.png")


def read(path: str | os.PathLike, split: str = "") -> Dataset:
    """The data set at ``path``; of several splits that of the name ``split``.

    Raises InputError where nothing is recognised, or several splits are and none is named.
    """
    return chosen(recognise(path), path, split).read()


def chosen(
    sources: Sequence[AnnotationSource], path: str | os.PathLike, split: str = ""
) -> AnnotationSource:
    """Of several sources at ``path`` that of the split; InputError where several may be meant."""
    found = [each for each in sources if each.split == split] or sources
    if len(found) > 1:
        named = ", ".join(f"{each.split or each.path} ({each.form})" for each in sources)
        raise InputError(f"{one_line(path)} holds several data sets: {named}; name one of them")
    return found[0]


def recognise(path: str | os.PathLike) -> list[AnnotationSource]:
    """What lies at ``path``: one source, or one for each of its splits.

    Raises InputError that says what was looked for.
    """
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise InputError(f"{one_line(path)} is not there")
    found = _folder(path) if path.is_dir() else _file(path)
    if not found:
        raise InputError(f"{one_line(path)} holds no annotations that are known; {_allowed(path)}")
    return found


def _allowed(path: Path) -> str:
    kinds: set[str] = set()
    for _, _, names in files.walk(path if path.is_dir() else path.parent):
        kinds |= {Path(name).suffix.lower() or name for name in names}
        if len(kinds) > 30:
            break
    return f"it has files {', '.join(sorted(kinds)[:8]) or 'of no kind'}. Known are " + "; ".join(
        f"{form}: {what}" for form, what in FORMS.items()
    )


# A file -----------------------------------------------------------------------------------------


def _file(path: Path) -> list[AnnotationSource]:
    suffix = path.suffix.lower()
    try:
        if suffix in (".yaml", ".yml"):
            return _yaml(path)
        if suffix == ".json":
            content = json_of(path)
            if coco.is_coco(content):
                return [_coco(path)]
            if isinstance(content, dict) and "shapes" in content:
                return [_labelme(path, [path])]
        elif suffix == ".xml":
            root = xml_of(path).tag
            if root == "annotations":
                return [_cvat(path)]
            if root == "annotation":
                return [_voc(path, [path])]
    except BadFile as error:
        raise InputError(f"{one_line(path)}: {error}") from None
    return []


def _yaml(path: Path) -> list[AnnotationSource]:
    splits = yolo.splits(path)
    if not splits:  # the list of classes alone
        held = (path.parent / name for name in (*OF_IMAGES, "."))
        splits = {"": [next(folder for folder in held if folder.is_dir())]}
    return [
        AnnotationSource("YOLO", path, split, partial(yolo.read_yaml, file=path, splits=paths))
        for split, paths in splits.items()
    ]


def _coco(path: Path) -> AnnotationSource:
    return AnnotationSource(
        "COCO", path, reader=lambda data: coco.read(data, path, Pictures(*_around(path.parent)))
    )


def _cvat(path: Path) -> AnnotationSource:
    return AnnotationSource(
        "CVAT", path, reader=lambda data: cvat.read(data, path, Pictures(path.parent))
    )


def _labelme(path: Path, found: list[Path]) -> AnnotationSource:
    folder = path if path.is_dir() else path.parent
    return AnnotationSource(
        "LabelMe", path, reader=lambda data: labelme.read(data, found, Pictures(*_around(folder)))
    )


def _voc(path: Path, found: list[Path]) -> AnnotationSource:
    folder = path if path.is_dir() else path.parent
    return AnnotationSource(
        "Pascal VOC", path, reader=lambda data: voc.read(data, found, Pictures(*_around(folder)))
    )


def _around(folder: Path) -> tuple[Path, ...]:
    """Where the images of annotation files of a folder may be: in it, and, where it is one for
    annotations alone, beside it."""
    if folder.name.lower() in ("annotations", "labels", "json", "xml", "xmls"):
        return folder, folder.parent
    return (folder,)


# A folder ---------------------------------------------------------------------------------------


def _folder(path: Path) -> list[AnnotationSource]:
    """By what is surest first: files that name a format, then those in it, then its folders."""
    for look in (cityscapes.recognise, _of_names, _of_splits, _of_files, _of_images):
        if found := look(path):
            return found
    return []


def _of_names(path: Path) -> list[AnnotationSource]:
    held = sorted(os.listdir(path))
    for name in (name for name in held if name.lower().endswith((".yaml", ".yml"))):
        try:
            return _yaml(path / name)
        except BadFile as error:
            if name in ("data.yaml", "dataset.yaml"):
                raise InputError(f"{one_line(path / name)}: {error}") from None
    for name in COCO_NAMES:
        if name in held and (found := _file(path / name)):
            return found
    if "annotations.xml" in held:
        return _file(path / "annotations.xml")
    return []


def _of_splits(path: Path) -> list[AnnotationSource]:
    """``train``, ``valid`` and so on, each a data set of its own."""
    found = []
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and (split := SPLITS.get(folder.name.lower())):
            inside = _of_names(folder) or _of_files(folder) or _of_images(folder)
            found += [replace(each, split=split) for each in inside if not each.split]
    return found


def _of_files(path: Path) -> list[AnnotationSource]:
    """XML and JSON files, in the folder or below it; of COCO's the one, or one a split."""
    xml_files, json_files = _below(path, ".xml"), _below(path, ".json")
    kinds = [_kind(file) for file in xml_files[:PEEKED]]
    if "annotation" in kinds:
        alone = set(kinds) == {"annotation"}
        return [_voc(path, [file for file in xml_files if alone or _kind(file) == "annotation"])]
    if "annotations" in kinds and len(xml_files) == 1:
        return [_cvat(xml_files[0])]
    kinds = [_kind(file) for file in json_files[:PEEKED]]
    if "shapes" in kinds:
        return [_labelme(path, json_files)]
    found = [_coco(file) for file in json_files if _kind(file) == "coco"]
    objects = [each for each in found if each.path.name.startswith(OF_OBJECTS)] or found
    if len(objects) < 2:
        return objects
    return [replace(each, split=_split_of(each.path, objects)) for each in objects]


def _split_of(file: Path, others: list[AnnotationSource]) -> str:
    """``train`` of ``instances_train2017.json``, where no other file is of that split; else the
    file's name."""
    names = [coco.NO_WORD.split(each.path.stem.lower()) for each in others]
    words = coco.NO_WORD.split(file.stem.lower())
    split = next((SPLITS[word] for word in words if word in SPLITS), "")
    many = sum(any(SPLITS.get(word) == split for word in each) for each in names)
    return split if split and many == 1 else file.name


def _below(path: Path, suffix: str) -> list[Path]:
    return sorted(
        Path(parent) / name
        for parent, _, names in files.walk(path)
        for name in names
        if name.lower().endswith(suffix) and not name.startswith(".")
    )


def _kind(file: Path) -> str:
    """What an XML or a JSON file is: its root's name; ``coco``, ``shapes``; empty for others."""
    try:
        if file.suffix.lower() == ".xml":
            return xml_of(file).tag
        content = json_of(file)
    except BadFile:
        return "annotation" if file.suffix.lower() == ".xml" else ""
    if coco.is_coco(content):
        return "coco"
    return "shapes" if isinstance(content, dict) and "shapes" in content else ""


def _of_images(path: Path) -> list[AnnotationSource]:
    """Text files or label images with the images, in the folder or in one beside it."""
    images = next((path / name for name in OF_IMAGES if (path / name).is_dir()), None)
    labels = path / "labels"
    if images and labels.is_dir() and _has_text(labels):
        return [_yolo(path, images, labels)]
    if images is None and _has_text(path):
        return [_yolo(path, path, path)]
    if images is None:
        grouped = label_images.grouped_by_folder(path)
        return [_objects(path, grouped, list(grouped))] if grouped else _beside(path)
    for masks in (path / name for name in OF_MASKS if (path / name).is_dir()):
        if found := _split_masks(path, images, masks):
            return found
        if found := _masks(path, images, masks):
            return found
    return []


def _yolo(path: Path, images: Path, labels: Path) -> AnnotationSource:
    classes = next(
        (
            file
            for folder in (path, labels, path.parent)
            for name in yolo.CLASS_FILES
            if (file := folder / name).is_file()
        ),
        None,
    )
    return AnnotationSource(
        "YOLO", path, reader=lambda data: yolo.read_folder(data, images, labels, classes)
    )


def _has_text(folder: Path) -> bool:
    """Whether a text file below begins with the number of a class, as YOLO's do."""
    return any(_begins_with_number(file) for file in _below(folder, ".txt"))


def _begins_with_number(file: Path) -> bool:
    with open(file, "rb") as stream:
        words = stream.readline(1 << 16).split()
    return len(words) > yolo.BOX and words[0].isdigit()


def _split_masks(path: Path, images: Path, masks: Path) -> list[AnnotationSource]:
    """``images/training`` with ``annotations/training`` and so on, as ADE20K has them."""
    found = []
    for folder in sorted(each for each in images.iterdir() if each.is_dir()):
        split = SPLITS.get(folder.name.lower())
        if split and (masks / folder.name).is_dir():
            found += [
                replace(each, split=split) for each in _masks(path, folder, masks / folder.name)
            ]
    return found


def _masks(path: Path, images: Path, masks: Path) -> list[AnnotationSource]:
    pictures = below(images)
    stems = {_plain(file.stem): file for file in below(masks)}
    pairs = [(image, stems[image.stem]) for image in pictures if image.stem in stems]
    if pairs:
        table = label_images.table_of(path, masks, path.parent)
        objects = path / OBJECTS if (path / OBJECTS).is_dir() else None
        return [_labelled(path, pairs, table, objects, len(pictures) - len(pairs))]
    if grouped := label_images.grouped(pictures, masks):
        return [_objects(path, grouped, pictures)]
    return []


def _labelled(path, pairs, table, objects, without: int) -> AnnotationSource:
    def reader(data: Dataset) -> None:
        label_images.read_labels(data, pairs, table, objects)
        if without:
            data.remarks.append(f"{path}: {without} images have no label image: left out")

    return AnnotationSource("masks", path, reader=reader, labelled=(pairs, table))


def _objects(path: Path, grouped, pictures: list[Path]) -> AnnotationSource:
    return AnnotationSource(
        "masks", path, reader=lambda data: label_images.read_objects(data, grouped, pictures)
    )


def _plain(stem: str) -> str:
    """The name of a label image's picture: ``a`` of ``a_mask``."""
    for end in MASK_ENDS:
        stem = stem.removesuffix(Path(end).stem)
    return stem


def _beside(path: Path) -> list[AnnotationSource]:
    """``a.jpg`` with ``a_mask.png`` in one folder, as Roboflow writes them."""
    held = {file.name: file for file in sorted(path.iterdir()) if is_image(file.name)}
    pairs = [
        (image, held[f"{image.stem}{end}"])
        for image in held.values()
        for end in MASK_ENDS
        if f"{image.stem}{end}" in held
    ]
    if not pairs:
        return []
    table = label_images.table_of(path, path.parent)
    return [_labelled(path, pairs, table, None, len(held) - 2 * len(pairs))]
