"""Trees of class folders (ImageNet's layout), and lists of the labelled ones of their images."""

import logging
import os
from pathlib import Path

import numpy as np

from densessl.configs import FOLDER
from densessl.core.errors import InputError, nearest
from densessl.core.files import read_text, walk
from densessl.decoding import SUFFIXES, is_image

from .images import Images, draw_of_each_class, packed

LISTS = FOLDER / "classes"  # class lists that come with DenseSSL
SEEDED = "seeded"
STREAM = 0x5E3D  # keeps this generator apart from others of the same seed
NAMED = 3  # examples in a message

logger = logging.getLogger("densessl")


def read_folders(root: Path, splits: tuple[str, str], classes: str) -> tuple[Images, Images]:
    """The training and the validation images: ``root/SPLIT/CLASS/…``.

    ``classes``: the name of a class list or a file, or empty: every folder. Raises InputError when
    a split, a class or all images of one are missing, or the splits have other classes.
    """
    wanted = class_list(classes) if classes else None
    train, val = (_read_split(root / split, wanted) for split in splits)
    if train.classes != val.classes:
        differ = sorted(set(train.classes) ^ set(val.classes))
        raise InputError(
            f"{train.root} has {len(train.classes)} class folders and {val.root} "
            f"{len(val.classes)}; they must be the same (in one alone: {_some(differ)})"
        )
    return train, val


def _read_split(folder: Path, wanted: list[str] | None) -> Images:
    if not folder.is_dir():
        raise InputError(f"the folder {folder} is not there; it holds a folder of images a class")
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        loose = sum(is_image(entry.name) for entry in entries)
        found = f"{loose} images lie in it directly" if loose else "it has none"
        raise InputError(f"{folder} must hold a folder of images a class; {found}")
    if wanted is not None:
        if missing := [name for name in wanted if name not in set(classes)]:
            raise InputError(
                f"DATASETS.CLASSES: {len(missing)} of its {len(wanted)} classes have no folder in "
                f"{folder}: {_some(missing)}"
            )
        classes = sorted(wanted)
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        below = _images_below(folder, name)
        if not below:
            raise InputError(f"{folder / name} has no images ({', '.join(SUFFIXES)})")
        names += below
        labels += [label] * len(below)
    return Images(str(folder), folder, packed(names), np.array(labels, np.int64), tuple(classes))


def _images_below(folder: Path, name: str) -> list[str]:
    found = []
    for below, _, files in walk(folder / name):
        relative = os.path.relpath(below, folder)
        found += [os.path.join(relative, file) for file in files if is_image(file)]
    return sorted(found)


def class_list(classes: str) -> list[str]:
    """The folder names of a class list: a shipped one, or a text file of one a line."""
    shipped = {file.stem: file for file in sorted(LISTS.glob("*.txt"))}
    file = shipped.get(classes) or Path(classes).expanduser()
    names = listed(file, "DATASETS.CLASSES", classes, shipped)
    return list(dict.fromkeys(name.rstrip("/") for name in names))


def listed(file: Path, option: str, given: str, shipped=()) -> list[str]:
    """The lines of a text file but for empty ones and those that begin with #; InputError."""
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        hint = nearest(given, shipped) if shipped else None
        meant = f" Did you mean '{hint}'?" if hint else ""
        known = f" Shipped: {', '.join(shipped)}" if shipped else ""
        why = getattr(error, "strerror", None) or "it is no text"
        raise InputError(
            f"{option}: '{given}' is no text file that can be read ({why}; looked from "
            f"{Path.cwd()}).{meant}{known}"
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    if names := [line for line in lines if line and not line.startswith("#")]:
        return names
    raise InputError(f"{option}: {file} is empty; it takes one name a line")


def labelled(train: Images, wanted: str, share: float, folder: Path, seed: int) -> Images:
    """Those of the training images whose labels may be used.

    ``wanted``: ``seeded`` draws ``share`` of each class by ``seed``; else a text file (looked for
    in ``folder``, then as it stands) of image names, with their class folders or without, one a
    line; what follows white space is ignored. Raises InputError for a missing list and for names
    that are not there or not unique.
    """
    if wanted == SEEDED:
        return train.subset(draw_of_each_class(train, share, (STREAM, seed)))
    file = next((f for f in (folder / wanted, Path(wanted).expanduser()) if f.is_file()), None)
    if file is None:
        raise InputError(
            f"DATASETS.LIST: there is no {folder / wanted}, nor '{wanted}' in {Path.cwd()}. It "
            "lists the labelled training images, one file name a line: SimCLR's authors publish "
            "theirs (imagenet_subsets/1percent.txt and 10percent.txt in their repository "
            "google-research/simclr). Without it, 'DATASETS.LIST seeded' draws "
            f"{share:.0%} of each class by the seed; such numbers are not the papers'"
        )
    names = [line.split()[0] for line in listed(file, "DATASETS.LIST", wanted)]
    return train.subset(_find(train, list(dict.fromkeys(names)), file))


def remark_on_list(chosen: Images, train: Images, wanted: str, share: float) -> None:
    """Warn of a list that is not the protocol's: another share, or classes without an image."""
    if abs(len(chosen) / len(train) - share) > 0.1 * share:
        logger.warning(
            "%s lists %d of %d training images, which is not the %g %% of the protocol",
            wanted,
            len(chosen),
            len(train),
            100 * share,
        )
    if missing := len(train.classes) - len(np.unique(chosen.labels)):
        logger.warning("%s lists no image of %d classes", wanted, missing)


def _find(train: Images, names: list[str], file: Path) -> np.ndarray:
    """The numbers of the images with these names, rising."""
    all_names = [train.name(index) for index in range(len(train))]
    numbers: dict[str, int] = {}
    twice = set()
    for index, name in enumerate(all_names):
        for known in {name, os.path.basename(name)}:
            if known in numbers:
                twice.add(known)
            numbers[known] = index
    missing = [name for name in names if name not in numbers]
    if missing:
        raise InputError(
            f"{file}: {len(missing)} of its {len(names)} images are not in {train.root}: "
            f"{_some(missing)}"
        )
    if ambiguous := [name for name in names if name in twice]:
        raise InputError(
            f"{file}: in {train.root} several images have the names {_some(ambiguous)}; write "
            "them with their class folders"
        )
    return np.sort(np.array([numbers[name] for name in names], np.int64))


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
