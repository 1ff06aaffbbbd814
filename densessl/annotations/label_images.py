"""Masks as images: a label image a picture (numbers or colours of classes), or a file an object."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from densessl.decoding import UnreadableImage, opened, require_decodable

from .model import AnnotatedImage, Category, Dataset, Object
from .reading import BadFile, below, picture, text_of
from .shapes import box_of, runs

VOID = 255
TOUCHING = np.ones((3, 3))  # pixels that meet at a corner are of one region
TABLES = (
    "labelmap.txt",
    "class_dict.csv",
    "_classes.csv",
    "classes.csv",
    "classes.txt",
    "objectInfo150.txt",  # ADE20K's: Idx, Ratio, Train, Val, Stuff, Name by tabs
)
NUMBERED = re.compile(r"[_\-. ]*\d+$")
CLASS = re.compile(r"[^\W\d][^\W\d_\- ]{0,30}(?:[ _-][^\W\d]+)*")  # in the name of an object's file

Colour = tuple[int, int, int]


class ColourTable:
    """The names of classes, by number or by colour: ``labelmap.txt`` of CVAT (``name:r,g,b``),
    ``class_dict.csv`` (name, r, g, b), ``_classes.csv`` of Roboflow (number, name), or a list."""

    def __init__(self, file: Path):
        self.file = file
        self.numbers: dict[int, str] = {}
        self.colours: dict[Colour, str] = {}
        for place, line in enumerate(text_of(file).splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                try:
                    self._line(line, place)
                except ValueError:
                    raise BadFile(
                        f"line {place} is '{line[:60]}'; allowed: name:r,g,b or name,r,g,b or "
                        "number,name or a name"
                    ) from None

    @property
    def by_number(self) -> dict[int, str]:
        """The names by number; of a table of colours that of the line."""
        return self.numbers or dict(enumerate(self.colours.values()))

    def ordered(self) -> list[str]:
        """The classes in their order."""
        return list(dict.fromkeys([*self.numbers.values(), *self.colours.values()]))

    def counts_from_0(self) -> bool:
        """Whether the numbers are the places of the classes."""
        return not self.colours and [*self.numbers] == [*range(len(self.ordered()))]

    def _line(self, line: str, place: int) -> None:
        tabbed = [word.strip() for word in line.split("\t")]
        if len(tabbed) >= 6:
            if place > 1 or tabbed[0].isdigit():  # the first line is a head
                self.numbers[int(tabbed[0])] = re.split("[,;]", tabbed[-1])[0]
            return
        words = [word.strip() for word in re.split(r"[:,]", line)]
        if len(words) >= 4 and all(word.isdigit() for word in words[1:4]):
            self.colours[int(words[1]), int(words[2]), int(words[3])] = words[0]
        elif len(words) == 2 and words[0].isdigit():
            self.numbers[int(words[0])] = words[1]
        elif not any(words[1:]):  # CVAT leaves the colours out of one whose images have numbers
            self.numbers[len(self.numbers)] = words[0]
        elif place > 1:
            raise ValueError  # the first line may be a head


def table_of(*folders: Path) -> Path | None:
    """The table of classes beside label images."""
    return next(
        (found for folder in folders for name in TABLES if (found := folder / name).is_file()), None
    )


def is_background(name: str) -> bool:
    return name.lower() in ("background", "_background_", "__background__", "unlabeled", "void")


def read_labels(
    data: Dataset,
    pairs: list[tuple[Path, Path]],
    table_file: Path | None,
    objects: Path | None = None,
) -> None:
    """Pictures with one label image each; what of one class hangs together is one object.

    Numbers: 0 is background, 255 nothing; with a list whose first is no background, 0 is a class.
    ``objects``: a folder of images of the same names in which every object has a colour of its
    own (``SegmentationObject`` of VOC).
    """
    try:
        table = ColourTable(table_file) if table_file else None
    except BadFile as error:
        data.fault(table_file or data.path, "", str(error))
        return
    known: dict[str, int] = {}
    for image, labels in pairs:
        found = picture(data, image, labels, "")
        if found is None:
            continue
        try:
            classes = _classes(labels, table)
            parts = pixels(objects / labels.name) if objects else None
            for name, mask in classes:
                _require_size(mask, found)
                for region in _regions(mask, parts):
                    known.setdefault(name, len(known))
                    at = f"class {name}, region {len(found.objects)}"
                    found.objects.append(_object(region, known[name], at))
        except BadFile as error:
            data.fault(labels, "", str(error))
            continue
        data.pictures.append(found)
    _name(data, known, table)
    if objects is None:
        data.remarks.append(
            f"{data.path}: label images say no objects: each region of a class is one"
        )


def _name(data: Dataset, known: dict[str, int], table: ColourTable | None) -> None:
    """The categories in the order of the table, or of the numbers, in place of that of finding."""
    listed = [*table.numbers.values(), *table.colours.values()] if table else []
    names = [name for name in dict.fromkeys(listed) if not is_background(name)]
    names += sorted((name for name in known if name not in names), key=in_order)
    places = {number: names.index(name) for name, number in known.items()}
    for each in data.objects():
        each.category = places[each.category]
    data.categories += map(Category, names)


def in_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (0, name)


def pixels(file: Path, palette: bool = False) -> np.ndarray:
    """What a label image holds: numbers ``[h, w]``, or colours as one number a pixel, below 0.

    ``palette``: whether a palette image is one of colours.
    """
    try:
        with opened(file) as image:
            require_decodable(image)
            if image.mode in ("RGB", "RGBA") or (palette and image.mode == "P"):
                red, green, blue = np.asarray(image.convert("RGB"), np.int64).transpose(2, 0, 1)
                return -1 - (red << 16 | green << 8 | blue)
            return np.asarray(image).astype(np.int64)
    except UnreadableImage as error:
        raise BadFile(f"it cannot be read as an image: {error}") from None


def _classes(file: Path, table: ColourTable | None) -> list[tuple[str, np.ndarray]]:
    """Each class of a label image with its pixels."""
    values = pixels(file, palette=table is not None and bool(table.colours))
    found = []
    for value in np.unique(values).tolist():
        if value < 0:
            name = _of_colour(value, table)
        elif value == VOID:
            continue
        elif table is None:
            name = "" if value == 0 else str(value)
        elif value == 0 and 0 not in table.by_number:
            continue
        elif value in table.by_number:
            name = table.by_number[value]
        else:
            raise BadFile(_unlisted(value, table))
        if name and not is_background(name):
            found.append((name, values == value))
    return found


def shown(file: Path, table: ColourTable | None, size: tuple[int, int]) -> list[str]:
    """The classes that a label image shows, background among them; BadFile, also where it is not
    of ``size`` (width, height)."""
    values = pixels(file, palette=table is not None and bool(table.colours))
    if values.shape[::-1] != size:
        raise BadFile(
            f"it has {values.shape[1]}×{values.shape[0]} pixels; its image has {size[0]}×{size[1]}"
        )
    found = (_name_of(value, table, file) for value in np.unique(values).tolist())
    return [name for name in found if name is not None]


def numbers(file: Path, table: ColourTable | None, names: tuple[str, ...]) -> np.ndarray:
    """A label image as places in ``names``, uint8 ``[h, w]``, and 255 for none; BadFile."""
    values = pixels(file, palette=table is not None and bool(table.colours))
    found, places = np.unique(values, return_inverse=True)
    words = [_name_of(value, table, file) for value in found.tolist()]
    kept = [VOID if word is None else names.index(word) for word in words]
    return np.array(kept, np.uint8)[places].reshape(values.shape)


def is_plain(file: Path) -> bool:
    """Whether a label image's own pixels are numbers of 8 bits."""
    with opened(file) as image:
        return image.mode in ("L", "P", "1")


def _name_of(value: int, table: ColourTable | None, file: Path) -> str | None:
    """The class of a value as :func:`pixels` has it; None of one that stands for nothing."""
    if value < 0:
        return _of_colour(value, table) or None
    if value == VOID or (value == 0 and table is not None and 0 not in table.by_number):
        return None
    if table is None:
        return str(value)
    if value not in table.by_number:
        raise BadFile(_unlisted(value, table))
    return table.by_number[value]


def _unlisted(value: int, table: ColourTable) -> str:
    allowed = ", ".join(map(str, sorted(table.by_number)[:10]))
    return f"it has pixels of value {value}; {table.file} lists {allowed} (and 255)"


def _of_colour(value: int, table: ColourTable | None) -> str:
    packed = -1 - value
    colour = packed >> 16, packed >> 8 & 255, packed & 255
    if table is None or not table.colours:
        raise BadFile(
            f"it is a picture in colour; allowed: one channel of class numbers, or a table of "
            f"colours beside it ({TABLES[0]}: name:r,g,b a line)"
        )
    if colour in table.colours:
        return table.colours[colour]
    if colour in ((0, 0, 0), (224, 224, 192)):  # VOC's background, and its border
        return ""
    raise BadFile(f"it has pixels of the colour {colour}, which {table.file} does not list")


def _regions(mask: np.ndarray, parts: np.ndarray | None) -> list[np.ndarray]:
    if parts is None:
        from scipy import ndimage  # the one need of it, and slow to import

        numbered, count = ndimage.label(mask, TOUCHING)
        return [numbered == n for n in range(1, count + 1)]
    if parts.shape != mask.shape:
        raise BadFile("its image of objects has another size")
    return [mask & (parts == value) for value in np.unique(parts[mask])]


def _require_size(mask: np.ndarray, found: AnnotatedImage) -> None:
    if mask.shape[::-1] != found.size:
        raise BadFile(
            f"it has {mask.shape[1]}×{mask.shape[0]} pixels; its image {found.path} has "
            f"{found.size[0]}×{found.size[1]}"
        )


def _object(mask: np.ndarray, category: int, at: str) -> Object:
    return Object(category, box_of(mask), mask=runs(mask), at=at)


def grouped(images: list[Path], masks: Path) -> dict[Path, list[Path]]:
    """The files of one object each, by image: ``masks/NAME/….png`` or ``masks/NAME_3.png``; empty
    where the masks are none of that."""
    by_stem = {path.stem: path for path in images}
    found: dict[Path, list[Path]] = defaultdict(list)
    for file in below(masks):
        folder = file.parent.name
        stem = folder if folder in by_stem and file.parent != masks else _cut(file.stem, by_stem)
        if stem is not None:
            found[by_stem[stem]].append(file)
    return dict(found)


def grouped_by_folder(root: Path) -> dict[Path, list[Path]]:
    """The same of ``NAME/images/NAME.png`` with ``NAME/masks/….png``."""
    found = {}
    for folder in sorted(root.iterdir()):
        if (folder / "masks").is_dir() and len(images := below(folder / "images")) == 1:
            found[images[0]] = below(folder / "masks")
    return found


def _cut(stem: str, known: dict[str, Path]) -> str | None:
    """The longest name of an image that ``stem`` begins with, followed by a mark."""
    places = [n for n, letter in enumerate(stem) if letter in "_-. "]
    return next((stem[:n] for n in reversed(places) if stem[:n] in known), None)


def read_objects(data: Dataset, found: dict[Path, list[Path]], images: list[Path]) -> None:
    """Pictures whose objects have a file each: what is not 0 is the object.

    Its class is what the file's name has between that of the image and a number; else ``object``.
    """
    known: dict[str, int] = {}
    for image in images:
        made = picture(data, image, image, "")
        if made is None:
            continue
        data.pictures.append(made)
        for file in found.get(image, []):
            try:
                mask = pixels(file)
                mask = mask != (0 if mask.max() >= 0 else -1)  # black is -1 of colours
                _require_size(mask, made)
                if not mask.any():
                    raise BadFile("it has no pixel that is not 0")
            except BadFile as error:
                data.fault(file, "", str(error))
                continue
            name = NUMBERED.sub("", file.stem.removeprefix(image.stem)).strip("_-. ")
            number = known.setdefault(name if CLASS.fullmatch(name) else "object", len(known))
            made.objects.append(_object(mask, number, file.name))
    data.categories += map(Category, known)
