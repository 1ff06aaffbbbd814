"""VOC's layout: ``VOC2007`` and ``VOC2012``.

The training scenes are shared between the two years' trainval lists. The validation scenes are in
both years: as VOC2007's test list, and as the val list of VOC2012's segmentation.

As with the real ones, SBD (``benchmark_RELEASE/dataset``) holds masks without void of every
training image and of some that VOC evaluates on; ``voc_aug`` is what ``densessl prepare voc_aug``
makes of SBD and VOC2012, so that the protocol can run at once.
"""

import io
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.io import savemat

from densessl.core import files

from . import store
from .generate import Instance, Scene
from .labels import LABELS

VOID = 255


def palette() -> list[int]:
    """VOC's 256 colours, flat: the bits of the index, spread over red, green and blue."""
    colors = []
    for index in range(256):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> channel & 1) << (7 - bit)
            index >>= 3
        colors += rgb
    return colors


PALETTE = palette()


def places(split: str, number: int) -> dict[str, str]:
    """The folders of the years that have a scene, and its name there."""
    names = {"VOC2007": f"{number:06d}", "VOC2012": f"2012_{number:06d}"}
    if split == "train":
        del names["VOC2012" if number % 2 else "VOC2007"]
    return names


def write_image(root: Path, split: str, number: int, scene: Scene, jpeg: Path) -> None:
    """Write one scene's annotation and masks, and link its image."""
    by_class, by_object = masks(scene)
    for year, name in places(split, number).items():
        folder = root / year
        store.link(jpeg, folder / "JPEGImages" / f"{name}.jpg")
        path = folder / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_xml(year, name, scene), encoding="utf-8")
        store.save_png(folder / "SegmentationClass" / f"{name}.png", by_class, PALETTE)
        store.save_png(folder / "SegmentationObject" / f"{name}.png", by_object, PALETTE)
        if year == "VOC2012":
            exact = class_numbers(scene)
            _write_other_labels(root, split, number, name, exact, by_class)


def class_numbers(scene: Scene) -> np.ndarray:
    """VOC's class of every pixel, 0 for background: uint8 [S, S]."""
    return scene.semantic(lambda label: LABELS[label].voc).astype(np.uint8)


def masks(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Class and object numbers, uint8 [S, S]; void along outlines, on the side that lies behind."""
    by_class = class_numbers(scene)
    by_object = np.zeros_like(by_class)
    depth = np.zeros(by_class.shape, np.int32)  # 0: background
    for place_, instance in enumerate(scene.instances, start=1):
        by_object[instance.mask] = place_
        depth[instance.mask] = place_
    covering = (by_class == 0) & (scene.order > _first_object(scene))
    depth[covering] = len(scene.instances) + 1  # clutter before the objects
    width = 2 * max(1, round(len(depth) / 200)) + 1
    ahead = ndimage.maximum_filter(depth, width)
    void = (ahead > depth) & ~((depth == 0) & (ahead > len(scene.instances)))
    by_class[void] = VOID
    by_object[void] = VOID
    return by_class, by_object


def _first_object(scene: Scene) -> int:
    """The number (from 1) of the layer that holds the hindmost object."""
    return next(n for n, layer in enumerate(scene.layers, 1) if layer.instance is not None)


def _xml(year: str, name: str, scene: Scene) -> str:
    size = len(scene.image)
    objects = "".join(_object(instance) for instance in scene.instances)
    return (
        f"<annotation>\n\t<folder>{year}</folder>\n\t<filename>{name}.jpg</filename>\n"
        f"\t<source>\n\t\t<database>DenseSSL scenes</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{size}</width>\n\t\t<height>{size}</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>1</segmented>\n{objects}</annotation>\n"
    )


def _object(instance: Instance) -> str:
    x1, y1, x2, y2 = instance.box  # pixel edges; VOC counts pixels from 1, both ends included
    return (
        f"\t<object>\n\t\t<name>{instance.category}</name>\n\t\t<pose>{instance.pose}</pose>\n"
        f"\t\t<truncated>{instance.truncated:d}</truncated>\n"
        f"\t\t<occluded>{instance.visible < 0.95:d}</occluded>\n"
        f"\t\t<difficult>{instance.difficult:d}</difficult>\n"
        f"\t\t<bndbox>\n\t\t\t<xmin>{x1 + 1}</xmin>\n\t\t\t<ymin>{y1 + 1}</ymin>\n"
        f"\t\t\t<xmax>{x2}</xmax>\n\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>\n\t</object>\n"
    )


def write_lists(root: Path, train: list[int], val: list[int]) -> None:
    """Write ImageSets, and the lists of segmentation's other folders.

    trainval in halves of train and val, as in VOC, and VOC2007's test; VOC2012's segmentation has
    lists of its own.
    """
    held: dict[str, dict[int, str]] = {"VOC2007": {}, "VOC2012": {}}  # year: number to name
    for number in train:
        for year, name in places("train", number).items():
            held[year][number] = name
    unseen = {year: {n: places("val", n)[year] for n in val} for year in held}
    for year, tasks in (("VOC2007", ("Main", "Segmentation")), ("VOC2012", ("Main",))):
        names = list(held[year].values())
        lists = {"trainval": names, "train": names[::2], "val": names[1::2]}
        if year == "VOC2007":
            lists["test"] = list(unseen[year].values())
        for task in tasks:
            for split, listed in lists.items():
                text = "".join(f"{name}\n" for name in listed)
                files.write_text(root / year / "ImageSets" / task / f"{split}.txt", text)
    _write_other_lists(root, held["VOC2012"], unseen["VOC2012"])


SBD = Path("benchmark_RELEASE", "dataset")
AUGMENTED = Path("voc_aug")
HEADER = b"MATLAB 5.0 MAT-file, DenseSSL scenes"
HEADER_BYTES = 116  # of text, before what a reader looks at


def has_voc_mask(number: int) -> bool:
    """Whether VOC2012's segmentation list for training has this training scene: every other one."""
    return number % 4 == 2


def is_in_sbd(split: str, number: int) -> bool:
    """Whether SBD has a scene: all of VOC2012's training, a quarter of its validation."""
    return split == "train" or number % 4 == 1


def _write_other_labels(
    root: Path, split: str, number: int, name: str, exact: np.ndarray, with_void: np.ndarray
) -> None:
    """Write SBD's mask and the augmented set's of a scene of VOC2012: class numbers [S, S]."""
    if is_in_sbd(split, number):
        path = root / SBD / "cls" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mat(exact))
    voc_has_it = split == "val" or has_voc_mask(number)
    labels = with_void if voc_has_it else exact
    store.save_png(root / AUGMENTED / "labels" / f"{name}.png", labels)


def mat(labels: np.ndarray) -> bytes:
    """SBD's file of a mask: a MATLAB struct ``GTcls`` with the field ``Segmentation``."""
    present = np.setdiff1d(labels, 0).astype(np.uint8)[:, None]
    stream = io.BytesIO()
    struct = {"Segmentation": labels, "CategoriesPresent": present}
    savemat(stream, {"GTcls": struct}, do_compression=True)
    return HEADER.ljust(HEADER_BYTES) + stream.getvalue()[HEADER_BYTES:]  # theirs tells the time


def _write_other_lists(root: Path, train: dict[int, str], val: dict[int, str]) -> None:
    """Write the lists of VOC2012's segmentation, of SBD and of the augmented set.

    ``train``, ``val``: the scenes of VOC2012, number to name.
    """
    names, unseen = list(train.values()), list(val.values())
    segmented = [name for number, name in train.items() if has_voc_mask(number)]
    evaluated = [name for number, name in val.items() if is_in_sbd("val", number)]
    segmentation = Path("VOC2012", "ImageSets", "Segmentation")
    lists = {
        segmentation / "train.txt": segmented,
        segmentation / "val.txt": unseen,
        segmentation / "trainval.txt": segmented + unseen,
        SBD / "train.txt": names[::2],
        SBD / "val.txt": names[1::2] + evaluated,
        AUGMENTED / "train_aug.txt": names,
        AUGMENTED / "val.txt": unseen,
    }
    for path, listed in lists.items():
        files.write_text(root / path, "".join(f"{name}\n" for name in listed))
