"""One class an image: a tree of folders, or a table (CSV) of files and classes."""

import csv
import os
from functools import partial
from pathlib import Path

from densessl.core import files
from densessl.core.errors import InputError
from densessl.core.names import brief, one_line
from densessl.decoding import is_array, is_image

from .model import ONE_CLASS, AnnotatedImage, AnnotationSource, Category, Dataset, Object
from .reading import BadFile, Pictures, class_number, text_of
from .sources import SPLITS

FOLDERS, TABLE = ONE_CLASS
IMAGE = ("image", "images", "file", "file_name", "filename", "path", "image_path", "filepath")
LABEL = ("label", "labels", "class", "class_name", "category", "target")
SPLIT = ("split", "set", "subset", "partition")
SUFFIXES = (".csv", ".tsv")
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of an object that is the image; sizes are not looked at
Row = tuple[int, list[str]]  # the line, its words


def recognise(path: str | os.PathLike) -> list[AnnotationSource]:
    """What lies at ``path``: one source, or one for each of its splits; InputError."""
    path = Path(path).expanduser().absolute()
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return _of_table(path)
    if not path.is_dir():
        what = "is not there" if not path.exists() else "is no folder and no CSV"
        raise InputError(f"{one_line(path)} {what}; {ALLOWED}")
    tables = [each for each in sorted(path.iterdir()) if each.suffix.lower() in SUFFIXES]
    splits = {
        split: folder
        for folder in _folders(path)
        if (split := SPLITS.get(folder.name.lower())) and _classes(folder)
    }
    if splits:
        return [_of_folders(folder, split) for split, folder in splits.items()]
    if _classes(path):
        return [_of_folders(path)]
    if len(tables) == 1:
        return _of_table(tables[0])
    raise InputError(f"{one_line(path)} has no folder with images in it; {ALLOWED}")


ALLOWED = (
    "allowed: a folder with a folder of images a class (or train and val with these), or a CSV "
    "with a line of an image's name and its class each"
)


def _folders(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")


def _classes(path: Path) -> dict[str, list[Path]]:
    """The images of each class folder that has one; where none has, NPY files are images."""
    held = {
        folder.name: [
            Path(parent) / name for parent, _, names in files.walk(folder) for name in names
        ]
        for folder in _folders(path)
    }
    for wanted in (is_image, is_array):
        found = {
            name: sorted(file for file in every if wanted(file.name))
            for name, every in held.items()
        }
        if any(found.values()):
            return {name: images for name, images in found.items() if images}
    return {}


def _of_folders(path: Path, split: str = "") -> AnnotationSource:
    return AnnotationSource(FOLDERS, path, split, partial(_read_folders, path=path))


def _read_folders(data: Dataset, path: Path) -> None:
    for number, (name, images) in enumerate(_classes(path).items()):
        data.categories.append(Category(name))
        data.pictures += [_image(image, number, "") for image in images]


def _image(path: Path, number: int, at: str) -> AnnotatedImage:
    return AnnotatedImage(path, (1, 1), [Object(number, WHOLE, at=at)])


# A table ----------------------------------------------------------------------------------------


def _of_table(path: Path) -> list[AnnotationSource]:
    try:
        columns, rows = _table(path)
    except BadFile as error:
        raise InputError(f"{one_line(path)}: {error}") from None
    parts: dict[str, list[Row]] = {}
    for row in rows:
        word = row[1][columns[2]].strip() if len(columns) > 2 else ""
        parts.setdefault(SPLITS.get(word.lower(), word), []).append(row)
    return [
        AnnotationSource(
            TABLE, path, split, partial(_read_table, path=path, rows=held, columns=columns)
        )
        for split, held in parts.items()
    ]


def _table(path: Path) -> tuple[list[int], list[Row]]:
    """The columns of image, class and, where there is one, split; and the lines; BadFile.

    Without a head that names them, the first two are meant.
    """
    text = text_of(path)
    first = text.splitlines()[0] if text.strip() else ""
    mark = max("\t;,", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=mark)
    rows = [(reader.line_num, row) for row in reader if any(word.strip() for word in row)]
    if not rows:
        raise BadFile("it is empty")
    head = [word.strip().lower().replace(" ", "_") for word in rows[0][1]]
    places = [
        next((place for place, word in enumerate(head) if word in known), None)
        for known in (IMAGE, LABEL, SPLIT)
    ]
    if None not in places[:2]:
        columns = [place for place in places if place is not None]
        rows = rows[1:]
    elif len(head) == 2:
        columns = [0, 1]
        name = rows[0][1][0].strip()
        is_file = is_image(name) or is_array(name) or os.path.isfile(path.parent / name)
        rows = rows if is_file else rows[1:]
    else:
        raise BadFile(
            f"its first line is {brief(repr(','.join(rows[0][1])))}; allowed: two columns, of an "
            f"image's name and its class, or a head with one of {', '.join(IMAGE)} and one of "
            f"{', '.join(LABEL)}"
        )
    for line, row in rows:
        if len(row) <= max(columns):
            raise BadFile(f"line {line} has {len(row)} columns; allowed: {max(columns) + 1}")
    return columns, rows


def _read_table(data: Dataset, path: Path, rows: list[Row], columns: list[int]) -> None:
    pictures = Pictures(path.parent)
    known: dict[str, int] = {}
    for name in sorted({row[columns[1]].strip() for _, row in rows} - {""}, key=_in_order):
        class_number(data, known, name)
    seen: dict[Path, int] = {}
    for line, row in rows:
        image, label = row[columns[0]].strip(), row[columns[1]].strip()
        at = f"line {line}"
        try:
            if not label:
                raise BadFile("it has no class")
            found = pictures.find(image)
            if found in seen:
                raise BadFile(f"the image '{brief(image)}' is in line {seen[found]}, too")
        except BadFile as error:
            data.fault(path, at, str(error))
            continue
        seen[found] = line
        data.pictures.append(_image(found, known[label], at))


def _in_order(name: str) -> tuple[bool, int, str]:
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)
