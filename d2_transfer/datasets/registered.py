"""Data sets that a user's own code has registered with Detectron2."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from densessl.core.errors import InputError
from densessl.core.external import failure

from .. import compat
from .custom import NAMES as CUSTOM
from .inspection import some, spread
from .layouts import LAYOUTS

NEEDED = ("file_name", "image_id")


def among(names: Iterable[str]) -> list[str]:
    """Those that neither have a layout here nor are read from the user's files."""
    return [name for name in dict.fromkeys(names) if name not in LAYOUTS and name not in CUSTOM]


def read(name: str) -> list[dict]:
    """What it gives, once a process; InputError where its function fails, or gives none."""
    compat.setup()
    from detectron2.data import DatasetCatalog

    try:
        entries = DatasetCatalog.get(name)
    except Exception as error:  # the user's function raises anything
        _, message = failure(error, "")
        raise InputError(f"the data set {name} cannot be read: {message}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"the data set {name} is {brief(entries)}; it must be a list of dicts")
    return entries


def brief(value: object) -> str:
    return "empty" if value == [] else f"a {type(value).__name__}"


def check(name: str, trains: bool, masks: bool) -> str:
    """The SHA-256 of all that it gives; one InputError with all that is wrong.

    Looks at every entry, and for the files of a sample. ``trains``: it needs objects, with
    ``masks`` where the model learns them.
    """
    entries = read(name)
    problems: list[str] = []
    for place, entry in enumerate(entries):
        if lacking := [key for key in NEEDED if key not in entry]:
            problems.append(f"entry {place} has no {some(lacking)}")
    files = [Path(entry["file_name"]) for entry in entries if "file_name" in entry]
    problems += [f"{file} is not there" for file in spread(files) if not file.is_file()]
    objects = [each for entry in entries for each in entry.get("annotations", ())]
    if trains and not objects:
        problems.append("no entry has annotations, and nothing could be learnt")
    if trains and masks and not any(each.get("segmentation") for each in objects):
        problems.append("no annotation has a segmentation, and MODEL.MASK_ON is True")
    problems += _categories(name, objects)
    if problems:
        raise InputError(f"the data set {name} is not right: {'; '.join(problems[:5])}")
    text = json.dumps(entries, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _categories(name: str, objects: Sequence[dict]) -> list[str]:
    from detectron2.data import MetadataCatalog

    names = MetadataCatalog.get(name).get("thing_classes")
    if names is None:
        return ["its metadata have no thing_classes"]
    found = {each.get("category_id") for each in objects}
    if wrong := sorted(found - set(range(len(names))), key=str):
        return [f"category_id {some(wrong)}; allowed: 0 to {len(names) - 1}, the place of the name"]
    return []


def pictures(name: str) -> list[Path]:
    """Its image files."""
    return [Path(entry["file_name"]) for entry in read(name)]
