"""LVIS's layout (Gupta et al. 2019): annotations of its own on the images of COCO."""

from dataclasses import dataclass
from pathlib import Path

from .detection import Text, category_ids, search, values
from .inspection import DatasetLayout, Inspection

IMAGES = "coco"  # holds a folder of images for each split of COCO
NEEDED = (  # of an image and of a category, what the metric is made of
    b'"neg_category_ids"',
    b'"not_exhaustive_category_ids"',
    b'"frequency"',
)


@dataclass(frozen=True)
class LvisLayout(DatasetLayout):
    """A split of LVIS: ``annotations``, a JSON with the categories 1 to ``classes``."""

    annotations: str
    classes: int
    official: int = 0

    @property
    def numbers(self) -> dict[int, int]:
        """The class, from 0, by category id."""
        return {category: category - 1 for category in range(1, self.classes + 1)}

    @property
    def expected(self) -> str:
        return f"{self.annotations} and the images of COCO that it names in {IMAGES}/SPLIT2017"

    def inspect(self, root: Path) -> Inspection:
        """As the base class's; the JSON is searched, not parsed."""
        found = Inspection()
        file = root / self.annotations
        search(file, found, lambda text: self._inspect_json(found, file, text, root))
        return found

    def _inspect_json(self, found: Inspection, file: Path, text: Text, root: Path) -> None:
        listed: dict[str, list[str]] = {}
        for address in values(text, "coco_url"):
            split, name = address.split("/")[-2:] if "/" in address else ("", address)
            listed.setdefault(split, []).append(name)
        found.images = sum(map(len, listed.values()))
        if not listed:
            found.problems.append(f"{file} lists no image with a 'coco_url'")
        for split, names in listed.items():
            folder = root / IMAGES / split
            if (there := found.folder(folder)) is not None:
                found.need(file, names, there, folder, "")
        ids = category_ids(text)
        if ids != self.numbers.keys():
            found.problems.append(
                f"{file} has {len(ids)} categories; this version of LVIS has {self.classes}, with "
                f"the ids 1 to {self.classes}"
            )
        found.problems += [
            f"{file} has no {key.decode()}, which LVIS's metric needs"
            for key in NEEDED
            if text.find(key) < 0
        ]


def image_file(image: dict) -> str:
    """The file of an image below IMAGES, by its ``coco_url``: LVIS's splits are not COCO's."""
    return "/".join(image["coco_url"].split("/")[-2:])
