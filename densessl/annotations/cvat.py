"""CVAT's XML 1.1: one file of ``<image>`` (for images), or of ``<track>`` (for video)."""

from pathlib import Path

import numpy as np

from .model import LEAST_NUMBERS, AnnotatedImage, Category, Dataset, Object
from .reading import BadFile, GroupedPoints, Pictures, box_fault, number, picture, xml_of
from .shapes import around, box_of, hull, runs

SHAPES = ("box", "polygon", "mask", "skeleton")
POINTS = "points"
UNUSED = ("polyline", "ellipse", "cuboid", "tag")


def read(data: Dataset, file: Path, pictures: Pictures) -> None:
    """The images or frames of ``file`` into ``data``."""
    try:
        root = xml_of(file)
        if root.tag != "annotations":
            raise BadFile(f"its root is <{root.tag}>; allowed: <annotations>")
    except BadFile as error:
        data.fault(file, "", str(error))
        return
    reader = _Reader(data, file, pictures)
    reader.labels(root)
    for item in root.iter("image"):
        reader.image(item)
    for item in root.iter("track"):
        reader.track(item)
    reader.end()


class _Reader:
    def __init__(self, data: Dataset, file: Path, pictures: Pictures):
        self.data, self.file, self.pictures = data, file, pictures
        self.known: dict[str, int] = {}
        self.points: dict[str, list[str]] = {}  # of a skeleton's label, its points' names
        self.frames: dict[int, AnnotatedImage | None] = {}
        self.groups: dict[tuple, Object] = {}  # polygons of one object, by image, group and class
        self.grouped = GroupedPoints()
        self.unused = 0

    def labels(self, root) -> None:
        """The classes of ``<meta>``; the points of a skeleton are labels with a parent."""
        for label in root.iter("label"):
            name, parent = label.findtext("name"), label.findtext("parent")
            if name and parent:
                self.points.setdefault(parent, []).append(name)
            elif name and name not in self.known:
                self.known[name] = len(self.known)
        for name in self.known:
            self.data.categories.append(Category(name, tuple(self.points.get(name, ()))))

    def image(self, item) -> None:
        name = item.get("name", "")
        place = f"image {item.get('id', '?')} '{name}'"
        try:
            stated = tuple(int(number(item.get(side), side)) for side in ("width", "height"))
            path = self.pictures.find(name, self.file.parent)
        except BadFile as error:
            self.data.fault(self.file, place, str(error))
            return
        found = picture(self.data, path, self.file, place, (stated[0], stated[1]))
        if found is None:
            return
        self.data.pictures.append(found)
        shapes = [shape for shape in item if shape.tag != "attribute"]
        for number_, shape in enumerate(shapes):
            self.shape(shape, shape.get("label", ""), found, f"{place}, {shape.tag} {number_}")

    def track(self, item) -> None:
        """An object through the frames of a video, whose images are called frame_000000 and on."""
        for shape in item:
            if shape.get("outside") == "1":
                continue
            place = f"track {item.get('id', '?')}, frame {shape.get('frame', '?')}"
            try:
                frame = int(number(shape.get("frame"), "frame"))
            except BadFile as error:
                self.data.fault(self.file, place, str(error))
                continue
            if frame not in self.frames:
                self.frames[frame] = self.frame(frame, place)
            if (found := self.frames[frame]) is not None:
                self.shape(shape, item.get("label", ""), found, place)

    def frame(self, frame: int, place: str) -> AnnotatedImage | None:
        name = f"frame_{frame:06d}"
        if (path := self.pictures.by_stem(name)) is None:
            where = " and ".join(map(str, self.pictures.folders))
            self.data.fault(self.file, place, f"the image '{name}' is not below {where}")
            return None
        found = picture(self.data, path, self.file, place)
        if found is not None:
            self.data.pictures.append(found)
        return found

    def shape(self, shape, label: str, found: AnnotatedImage, at: str) -> None:
        group = shape.get("group_id", "0")
        if shape.tag not in SHAPES:
            if shape.tag == POINTS and group != "0":
                self.grouped_points(shape, label, found, group, at)
            elif shape.tag in (POINTS, *UNUSED):
                self.unused += 1
            else:
                allowed = ", ".join((*SHAPES, POINTS, *UNUSED))
                self.data.fault(self.file, at, f"it is a <{shape.tag}>; allowed: {allowed}")
            return
        try:
            if not label:
                raise BadFile("it has no label")
            made = getattr(self, f"_{shape.tag}")(shape, found.size, label)
            if fault := box_fault(made.box, found.size):
                raise BadFile(fault)
        except BadFile as error:
            self.data.fault(self.file, at, str(error))
            return
        if label not in self.known:
            self.known[label] = len(self.known)
            self.data.categories.append(Category(label, tuple(self.points.get(label, ()))))
        made.category, made.at = self.known[label], at
        if group != "0" and made.polygons:
            first = self.groups.setdefault((found.path, group, label), made)
            if first is not made:
                first.polygons += made.polygons
                first.box = hull(first.polygons)
                return
        found.objects.append(made)
        if group != "0":
            self.grouped.add_object(found.path, group, made)

    def grouped_points(self, shape, label: str, found: AnnotatedImage, group: str, at: str) -> None:
        """A point of the object of its group; several in one shape are of no name."""
        try:
            flat = _flat(shape)
        except BadFile as error:
            self.data.fault(self.file, at, str(error))
            return
        if len(flat) == 2:
            self.grouped.add_point(found.path, group, label, *flat)
        else:
            self.unused += 1

    def _box(self, shape, size, label: str) -> Object:
        x1, y1, x2, y2 = (number(shape.get(side), side) for side in ("xtl", "ytl", "xbr", "ybr"))
        if number(shape.get("rotation", 0), "rotation"):
            raise BadFile("the box is rotated; allowed: rotation 0")
        return Object(0, (x1, y1, x2, y2))

    def _polygon(self, shape, size, label: str) -> Object:
        flat = _flat(shape)
        if len(flat) < LEAST_NUMBERS:
            raise BadFile(f"a polygon has {len(flat) // 2} points; allowed: three or more")
        return Object(0, hull([flat]), [flat])

    def _mask(self, shape, size, label: str) -> Object:
        """Run lengths along the rows of the mask's own box, of 0 first."""
        left, top, width, height = (
            int(number(shape.get(side), side)) for side in ("left", "top", "width", "height")
        )
        counts = [int(number(each, "a count")) for each in shape.get("rle", "").split(",")]
        if min(counts) < 0 or sum(counts) != width * height:
            raise BadFile(
                f"its rle sums to {sum(counts)}, but its box of {width}×{height} has "
                f"{width * height} pixels"
            )
        if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
            raise BadFile(f"its mask of {width}×{height} at {left}, {top} reaches beyond its image")
        values = np.arange(len(counts)) % 2 == 1
        mask = np.zeros(size[::-1], bool)
        mask[top : top + height, left : left + width] = np.repeat(values, counts).reshape(
            height, width
        )
        if not mask.any():
            raise BadFile("its mask is empty")
        return Object(0, box_of(mask), mask=runs(mask))

    def _skeleton(self, shape, size, label: str) -> Object:
        """Its points by name, and the box around those that are in the image."""
        names = self.points.get(label) or [each.get("label", "") for each in shape.iter("points")]
        self.points.setdefault(label, names)
        points = dict.fromkeys(names, (0.0, 0.0, 0))
        for each in shape.iter("points"):
            name = each.get("label", "")
            if name not in points:
                raise BadFile(f"its point is '{name}'; allowed: {', '.join(names)}")
            if each.get("outside") != "1":
                x, y = _flat(each)[:2]
                points[name] = (x, y, 1 if each.get("occluded") == "1" else 2)
        seen = [value for x, y, v in points.values() if v for value in (x, y)]
        if not seen:
            raise BadFile("no point of it is in the image")
        return Object(0, around(seen), keypoints=list(points.values()))

    def end(self) -> None:
        self.unused += self.grouped.end(self.data)
        if self.unused:
            self.data.remarks.append(
                f"{self.file}: {self.unused} shapes are none of {', '.join(SHAPES)}, nor points of "
                "one by a group: left out"
            )


def _flat(shape) -> list[float]:
    """x, y, x, y … of ``points="x,y;x,y"``."""
    text = shape.get("points", "")
    flat = [number(each, "a coordinate") for point in text.split(";") for each in point.split(",")]
    if len(flat) % 2:
        raise BadFile(f"its points are '{text[:60]}'; allowed: x,y;x,y")
    return flat
