"""Annotations in memory, whatever file they came from: images, classes, objects, faults."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError

Id = int | float | str  # any number or text of JSON; 1 and 1.0 are one number, "1" is another id
Box = tuple[float, float, float, float]  # x1, y1, x2, y2: edges of pixels, from the upper left
Keypoint = tuple[float, float, int]  # x, y, v as COCO has it: 0 absent, 1 hidden, 2 seen
LEAST_NUMBERS = 6  # of a polygon: x, y of three points
ONE_CLASS = ("class folders", "CSV")  # forms of which an image has one class, and nothing a place
SHOWN = 20  # faults in a message
FORMS = {
    "COCO": "a JSON file with images, annotations and categories",
    "Pascal VOC": "a folder of XML files, <annotation> each",
    "YOLO": "data.yaml, or a folder of images with text files of labels",
    "LabelMe": "a folder of JSON files with shapes",
    "CVAT": "annotations.xml of 'CVAT for images 1.1' or 'CVAT for video 1.1'",
    "masks": "folders images and masks, with PNG files",
    "Cityscapes": "folders leftImg8bit and gtFine, with a folder a split",
}


@dataclass(frozen=True)
class Category:
    """A class. ``keypoints``: the names of its points, ``skeleton``: pairs of them, from 1;
    ``mirrored``: of each point which one it is in the mirror, from 0, where a file says so."""

    name: str
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    id: Id | None = None
    mirrored: tuple[int, ...] = ()
    group: str = ""  # COCO's supercategory


@dataclass
class Object:
    """One object of an image.

    ``category`` is its place in :attr:`Dataset.categories`. ``polygons`` are ``[x, y, x, y, …]`` in
    pixels; ``mask`` is an RLE, ``{"size": [h, w], "counts": text or numbers}``; an object has one
    of both, or neither. ``crowd``: a region of many. ``at``: its place in its file.
    """

    category: int
    box: Box
    polygons: list[list[float]] = field(default_factory=list)
    mask: dict[str, Any] | None = None
    keypoints: list[Keypoint] = field(default_factory=list)
    crowd: bool = False
    at: str = ""
    id: Id | None = None
    area: float | None = None


@dataclass
class AnnotatedImage:
    """An image file, its ``size`` (width, height) upright, and its objects."""

    path: Path
    size: tuple[int, int]
    objects: list[Object] = field(default_factory=list)
    id: Id | None = None


@dataclass(frozen=True)
class Fault:
    """What is wrong: the file, the place in it (a line, an object), and what stands there."""

    file: Path
    place: str
    what: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (str(self.file), self.place, self.what)))


@dataclass
class Dataset:
    """What lies at ``path``, in the format ``form``; ``root`` is the folder of all its images.

    ``faults`` keep it from being used; ``remarks`` say what was taken, and how.
    """

    form: str
    path: Path
    split: str = ""
    categories: list[Category] = field(default_factory=list)
    pictures: list[AnnotatedImage] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def objects(self) -> Iterator[Object]:
        for picture in self.pictures:
            yield from picture.objects

    @property
    def root(self) -> Path:
        """The deepest folder that holds every image."""
        folders = {picture.path.parent for picture in self.pictures}
        root = min(folders, key=lambda folder: len(folder.parts), default=self.path)
        while any(root not in (folder, *folder.parents) for folder in folders):
            root = root.parent
        return root

    def fault(self, file: Path, place: str, what: str) -> None:
        self.faults.append(Fault(file, place, what))

    def require_sound(self) -> "Dataset":
        """Itself; InputError with its faults, and for one without images or objects."""
        if not self.faults:
            if not self.pictures:
                self.fault(self.path, "", f"no image is annotated ({self.form})")
            elif not any(True for _ in self.objects()):
                self.fault(self.path, "", f"no image has an object ({self.form})")
        if self.faults:
            raise InputError(listed("the annotations cannot be used as they are:", self.faults))
        return self


@dataclass(frozen=True)
class AnnotationSource:
    """One data set that was recognised: its format, its split, and what reads it; of one of label
    images each image with its own (``labelled``), and the table of classes."""

    form: str
    path: Path
    split: str = ""
    reader: Callable[[Dataset], None] = field(repr=False, default=lambda data: None)
    labelled: tuple[list[tuple[Path, Path]], Path | None] | None = field(repr=False, default=None)

    def read(self) -> Dataset:
        """All of it; what is wrong is in ``faults``."""
        data = Dataset(self.form, self.path, self.split)
        self.reader(data)
        data.pictures.sort(key=lambda each: each.path)
        return data


def listed(first: str, faults: list[Fault]) -> str:
    """A message of a line a fault, at most SHOWN of them."""
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n  ".join([first, *map(str, faults[:SHOWN]), *more])
