"""CIFAR, CUB, Cars, Aircraft and Pets, where torchvision's own data sets put them.

Training is on all images that have official training labels (trainval where there is one).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.core.files import read_text

from .images import Images, packed


@dataclass(frozen=True)
class SmallSet:
    """Where a data set lies below the data sets' folder, how it is read, how large it is."""

    title: str
    folder: str
    expected: str
    read: Callable[[Path], tuple[Images, Images]]
    official: tuple[int, int]  # training and test images


def _cifar(name: str) -> Callable[[Path], tuple[Images, Images]]:
    def read(folder: Path) -> tuple[Images, Images]:
        from torchvision import datasets

        splits = []
        for train in (True, False):
            try:  # it compares MD5 sums before it reads
                found = getattr(datasets, name)(folder.parent, train=train, download=False)
            except (RuntimeError, OSError):
                raise InputError(
                    f"the Python version of {name} is not in {folder}, or not as published"
                ) from None
            labels = np.array(found.targets, np.int64)
            where = f"{folder} ({'train' if train else 'test'})"
            splits.append(
                Images(where, folder, packed([]), labels, tuple(found.classes), pixels=found.data)
            )
        return splits[0], splits[1]

    return read


def _cub(folder: Path) -> tuple[Images, Images]:
    paths, labels, trains = (
        dict(_pairs(folder / f"{name}.txt"))
        for name in ("images", "image_class_labels", "train_test_split")
    )
    classes = [name for _, name in _pairs(folder / "classes.txt")]
    chosen = [
        [(path, int(labels[key]) - 1) for key, path in paths.items() if trains[key] == split]
        for split in "10"
    ]
    return _splits(folder / "images", chosen, classes)


def _aircraft(folder: Path) -> tuple[Images, Images]:
    data = folder / "data"
    classes = _text(data / "variants.txt")
    numbers = {name: number for number, name in enumerate(classes)}
    chosen = [
        [
            (f"{image}.jpg", numbers[name])
            for image, name in _pairs(data / f"images_variant_{s}.txt")
        ]
        for s in ("trainval", "test")
    ]
    return _splits(data / "images", chosen, classes)


def _pets(folder: Path) -> tuple[Images, Images]:
    chosen = []
    names: dict[int, str] = {}
    for split in ("trainval", "test"):
        rows = [line.split() for line in _text(folder / "annotations" / f"{split}.txt")]
        chosen.append([(f"{row[0]}.jpg", int(row[1]) - 1) for row in rows])
        names |= {int(row[1]) - 1: row[0].rsplit("_", 1)[0] for row in rows}
    return _splits(folder / "images", chosen, [names[label] for label in sorted(names)])


def _cars(folder: Path) -> tuple[Images, Images]:
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError:
        raise EnvironmentLacks(
            "scipy is not installed, and Cars needs it; fix it with: pip install scipy"
        ) from None
    files = ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")
    for file in ("devkit/cars_meta.mat", *files):
        if not (folder / file).is_file():
            raise InputError(f"{folder / file} is not there")
    classes = loadmat(folder / "devkit/cars_meta.mat", squeeze_me=True)["class_names"]
    chosen = []
    for file, images in zip(files, ("cars_train", "cars_test"), strict=True):
        rows = np.atleast_1d(loadmat(folder / file, squeeze_me=True)["annotations"])
        chosen.append([(f"{images}/{row['fname']}", int(row["class"]) - 1) for row in rows])
    return _splits(folder, chosen, [str(name) for name in np.atleast_1d(classes)])


SETS = {
    "cifar10": SmallSet(
        "CIFAR-10",
        "cifar-10-batches-py",
        "data_batch_1 … 5, test_batch, batches.meta",
        _cifar("CIFAR10"),
        (50000, 10000),
    ),
    "cifar100": SmallSet(
        "CIFAR-100", "cifar-100-python", "train, test, meta", _cifar("CIFAR100"), (50000, 10000)
    ),
    "cub200": SmallSet(
        "CUB-200-2011",
        "CUB_200_2011",
        "images/, images.txt, classes.txt, image_class_labels.txt, train_test_split.txt",
        _cub,
        (5994, 5794),
    ),
    "cars": SmallSet(
        "Stanford Cars",
        "stanford_cars",
        "cars_train/, cars_test/, devkit/, cars_test_annos_withlabels.mat",
        _cars,
        (8144, 8041),
    ),
    "aircraft": SmallSet(
        "FGVC-Aircraft",
        "fgvc-aircraft-2013b",
        "data/images/, data/variants.txt, data/images_variant_trainval.txt and …_test.txt",
        _aircraft,
        (6667, 3333),
    ),
    "pets": SmallSet(
        "Oxford-IIIT Pets",
        "oxford-iiit-pet",
        "images/, annotations/trainval.txt and test.txt",
        _pets,
        (3680, 3669),
    ),
}


def read_small(name: str, root: Path) -> tuple[Images, Images]:
    """The training and test images of one of ``SETS``; InputError for what is missing or wrong."""
    one = SETS[name]
    folder = root / one.folder
    if not folder.is_dir():
        raise InputError(f"the folder {folder} is not there")
    try:
        return one.read(folder)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"the files in {folder} do not fit together: {error!r}") from None


def _splits(root: Path, chosen, classes: list[str]) -> tuple[Images, Images]:
    found = []
    for rows, split in zip(chosen, ("train", "test"), strict=True):
        labels = np.array([label for _, label in rows], np.int64)
        if not len(labels):
            raise InputError(f"{root} has no {split} images")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(f"label {labels.max() + 1} of {len(classes)} classes")
        names = packed([name for name, _ in rows])
        found.append(Images(f"{root} ({split})", root, names, labels, tuple(classes)))
    return found[0], found[1]


def _text(file: Path) -> list[str]:
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file} is not there, or is no text") from None
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _pairs(file: Path) -> list[list[str]]:
    """Lines of a name and what follows it."""
    return [line.split(maxsplit=1) for line in _text(file)]
