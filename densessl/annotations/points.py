"""Points that belong to an object because a file gives both one group: LabelMe's and CVAT's."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from .model import Dataset, Keypoint, Object

SEEN = 2


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
        self.points.setdefault((image, group), {})[name] = (x, y, SEEN)
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
