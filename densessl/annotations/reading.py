"""What all readers share: texts of a bounded size, XML that is not trusted, and the images."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from densessl.core import files, names
from densessl.core.errors import InputError
from densessl.decoding import UnreadableImage, is_image, size_of

from .model import AnnotatedImage, Box, Category, Dataset, Keypoint, Object

LARGEST = {".json": 4 << 30, ".xml": 1 << 30}  # bytes; others are lists and tables
LARGEST_LIST = 64 << 20
ENTITY = re.compile(r"<!ENTITY", re.IGNORECASE)  # with them a small file becomes a huge text
NEAR = ("images", "JPEGImages", "data", "img", "imgs")  # folders that formats put images in


class BadFile(ValueError):
    """A file is not what it should be; the message is the reason, without its name."""


def text_of(file: Path) -> str:
    """A text file in any form of Unicode; BadFile with the reason."""
    try:
        files.require_file(file)
        size, most = file.stat().st_size, LARGEST.get(file.suffix.lower(), LARGEST_LIST)
        if size > most:
            raise BadFile(f"it has {size:,} bytes; allowed: {most:,}")
        return files.read_text(file)
    except UnicodeDecodeError as error:
        raise BadFile(f"it is no text: {error}") from None
    except OSError as error:
        raise BadFile("it is not there" if not file.exists() else error.strerror or "") from None


def json_of(file: Path):
    """The value of a JSON file; BadFile."""
    try:
        return files.parse_json(text_of(file))
    except BadFile:
        raise
    except ValueError as error:
        raise BadFile(f"it is not JSON: {error}") from None


def xml_of(file: Path) -> ElementTree.Element:
    """The root of an XML file; BadFile, also for one that defines entities.

    Nothing outside the file is read, and an element's text is never longer than the file.
    """
    text = text_of(file)
    if ENTITY.search(text):
        raise BadFile("it defines entities (<!ENTITY …>), which no program for annotations does")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadFile(f"it is not XML: {error}") from None


def require_xml(file: Path) -> ElementTree.Element:
    """The same; InputError that names the file."""
    try:
        return xml_of(file)
    except BadFile as error:
        raise InputError(f"{names.one_line(file)}: {error}") from None


def number(text: object, what: str) -> float:
    """A finite number; BadFile that names ``what`` it should be."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(text, bool) or not math.isfinite(value):
        raise BadFile(f"{what} is {names.brief(repr(text))}; allowed: a number")
    return value


def box_fault(box: Box, size: tuple[int, int]) -> str | None:
    """What is wrong with a box in an image of ``size``."""
    x1, y1, x2, y2 = box
    message = f"the box is {x1:g}, {y1:g} to {x2:g}, {y2:g}"
    if x2 <= x1 or y2 <= y1:
        return f"{message}, which has no area"
    if x1 >= size[0] or y1 >= size[1] or x2 <= 0 or y2 <= 0:
        return f"{message}, outside its image of {size[0]}×{size[1]} pixels"
    return None


class Pictures:
    """The images below some folders, found as annotation files name them."""

    def __init__(self, *folders: Path):
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]

    def find(self, name: str, *near: Path) -> Path:
        """The image that a file calls ``name``: as a path from one of ``near``, from a folder for
        images there, or else by its last part; BadFile where there is none, or more than one."""
        plain = PurePosixPath(name.replace("\\", "/"))
        for folder in (*near, *self.folders):
            for parent in (folder, *(folder / each for each in NEAR)):
                if (found := parent / plain).is_file():
                    return found
        return self._anywhere(plain, name)

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """The images by the last part of their paths."""
        found: dict[str, list[Path]] = {}
        for folder in self.folders:
            for path in below(folder):
                found.setdefault(path.name, []).append(path)
        return found

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in (path for paths in self.by_name.values() for path in paths):
            found.setdefault(path.stem, []).append(path)
        return found

    def by_stem(self, stem: str) -> Path | None:
        """The one image of this name without its suffix; None where there is none, or several."""
        found = self._by_stem.get(stem, [])
        return found[0] if len(found) == 1 else None

    def _anywhere(self, plain: PurePosixPath, name: str) -> Path:
        found = self.by_name.get(plain.name, [])
        parts = plain.parts
        while len(found) > 1 and len(parts) > 1:  # the one whose folders are named alike
            alike = [path for path in found if path.parts[-len(parts) :] == parts]
            if alike:
                found = alike
                break
            parts = parts[1:]
        if len(found) == 1:
            return found[0]
        where = " and ".join(map(str, self.folders)) or "any folder"
        if not found:
            raise BadFile(f"the image '{names.brief(name)}' is not below {where}")
        raise BadFile(
            f"the image '{names.brief(name)}' is there {len(found)} times: {found[0]}, {found[1]}"
        )


def below(folder: Path) -> list[Path]:
    """Every image below a folder, by name."""
    return [
        Path(parent) / name
        for parent, _, held in files.walk(folder)
        for name in sorted(held)
        if is_image(name)
    ]


def picture(
    data: Dataset, path: Path, file: Path, place: str, stated: tuple[int, int] | None = None
) -> AnnotatedImage | None:
    """The picture of an image file, in pixels as it is upright; None, and a fault, where it cannot
    be read or has not the size that ``file`` says (``stated``)."""
    try:
        size = size_of(path)
    except UnreadableImage as error:
        data.fault(path, "", f"it cannot be read as an image: {error}")
        return None
    if stated is not None and stated != size:
        turned = stated == size_of(path, upright=False)
        why = ", turned as its EXIF data say" if turned else ""
        data.fault(
            file,
            place,
            f"the image is said to have {stated[0]}×{stated[1]} pixels, but {path} has "
            f"{size[0]}×{size[1]}{why}",
        )
        return None
    return AnnotatedImage(path, size)


def class_number(data: Dataset, known: dict[str, int], name: str) -> int:
    """The place of a class in ``data.categories``, at their end where it is new."""
    if name not in known:
        known[name] = len(data.categories)
        data.categories.append(Category(name))
    return known[name]


class GroupedPoints:
    """Collects the points and the objects of groups; at the end the points are keypoints.

    A group is of one image. Its points are those of its object, where it has one alone; a class has
    the points that any of its objects has, by their names.
    """

    def __init__(self):
        self.objects: dict[tuple[Path, object], list[Object]] = {}
        self.points: dict[tuple[Path, object], dict[str, Keypoint]] = {}
        self.given: Counter[tuple[Path, object]] = Counter()

    def add_object(self, image: Path, group: object, found: Object) -> None:
        self.objects.setdefault((image, group), []).append(found)

    def add_point(self, image: Path, group: object, name: str, x: float, y: float) -> None:
        self.points.setdefault((image, group), {})[name] = (x, y, 2)  # 2: seen
        self.given[image, group] += 1

    def end(self, data: Dataset) -> int:
        """Give every object its keypoints; how many points are of none."""
        owned = {
            key: self.objects[key][0]
            for key, points in self.points.items()
            if len(self.objects.get(key, ())) == 1 and len(points) == self.given[key]
        }
        names: dict[int, dict[str, None]] = {}
        for key, found in owned.items():
            names.setdefault(found.category, {}).update(dict.fromkeys(self.points[key]))
        for category, points in names.items():
            data.categories[category] = replace(data.categories[category], keypoints=tuple(points))
        for key, found in owned.items():
            found.keypoints = [
                self.points[key].get(name, (0.0, 0.0, 0)) for name in names[found.category]
            ]
        return sum(self.given.values()) - sum(self.given[key] for key in owned)
