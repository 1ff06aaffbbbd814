"""Pascal VOC: an XML file an image, ``<annotation>`` with ``<object>`` and ``<bndbox>``."""

from pathlib import Path

from .model import LEAST_NUMBERS, Dataset, Object
from .reading import BadFile, Pictures, box_fault, class_number, number, picture, xml_of

SIZE = ("width", "height")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(data: Dataset, xml_files: list[Path], pictures: Pictures) -> None:
    """Every XML file of ``xml_files`` into ``data``.

    VOC counts pixels from 1 and means both corners, so that 1, 1, 1, 1 is the upper left pixel.
    Where some corner is below 1, or most are written as fractions ("12.0"), the program that wrote
    the files counts from 0 and means edges. ``<polygon>`` (x1, y1, x2, …) counts in the same way.
    """
    roots = []
    for file in xml_files:
        try:
            root = xml_of(file)
            if root.tag != "annotation":
                raise BadFile(f"its root is <{root.tag}>; allowed: <annotation>")
            roots.append((file, root))
        except BadFile as error:
            data.fault(file, "", str(error))
    corners = [
        corner.text or "" for _, root in roots for side in SIDES[:2] for corner in root.iter(side)
    ]
    first = 0 if _from_zero(corners) else 1
    if not first:
        data.remarks.append(
            f"{data.path}: xmin and ymin are 0 or fractions: taken as edges, counted from 0"
        )
    known: dict[str, int] = {}
    for file, root in roots:
        _read_one(data, file, root, pictures, known, first)


def _from_zero(corners: list[str]) -> bool:
    def below_one(corner: str) -> bool:
        try:
            return float(corner) < 1
        except ValueError:
            return False

    return 2 * sum("." in corner for corner in corners) > len(corners) or any(
        map(below_one, corners)
    )


def _read_one(data, file: Path, root, pictures: Pictures, known, first: int) -> None:
    try:
        path = _picture_of(file, root, pictures)
        stated = (0, 0)
        if root.find("size") is not None:
            width, height = (number(root.findtext(f"size/{each}"), each) for each in SIZE)
            stated = int(width), int(height)
    except BadFile as error:
        data.fault(file, "", str(error))
        return
    found = picture(data, path, file, "size", stated if all(stated) else None)
    if found is None:
        return
    for place, item in enumerate(root.iter("object"), 1):
        at = f"object {place}"
        try:
            name = (item.findtext("name") or "").strip()
            if not name:
                raise BadFile("it has no <name>")
            corners = [number(item.findtext(f"bndbox/{side}"), side) for side in SIDES]
            polygon = _polygon(item, first)
        except BadFile as error:
            data.fault(file, at, str(error))
            continue
        x1, y1, x2, y2 = corners
        box = x1 - first, y1 - first, x2, y2
        if fault := box_fault(box, found.size):
            data.fault(file, at, fault)
            continue
        polygons = [polygon] if len(polygon) >= LEAST_NUMBERS else []
        found.objects.append(Object(class_number(data, known, name), box, polygons, at=at))
    data.pictures.append(found)


def _polygon(item, first: int) -> list[float]:
    """x, y of the points of ``<polygon>``, which are called x1, y1, x2 and so on."""
    points = {each.tag: each.text for each in item.iterfind("polygon/*")}
    return [
        number(points[f"{axis}{n}"], f"{axis}{n}") - first
        for n in range(1, len(points) // 2 + 1)
        for axis in "xy"
        if f"x{n}" in points and f"y{n}" in points
    ]


def _picture_of(file: Path, root, pictures: Pictures) -> Path:
    """By ``<filename>``, which many programs leave wrong; else by the XML file's own name."""
    near = (file.parent, file.parent.parent)
    named = (root.findtext("filename") or "").strip()
    try:
        if not named:
            raise BadFile("it has no <filename>")
        return pictures.find(named, *near)
    except BadFile as error:
        if found := pictures.by_stem(file.stem):
            return found
        raise error from None
