"""Whether the data sets of a protocol are there, asked before anything runs."""

import os
from collections.abc import Iterable
from pathlib import Path

from console.errors import InputError, unknown

from .layouts import LAYOUTS

VARIABLE = "DETECTRON2_DATASETS"


def root_folder(data: str | os.PathLike | None = None) -> tuple[Path, str]:
    """The folder that holds the data sets, and what named it.

    ``data`` (``--data``) wins over the variable DETECTRON2_DATASETS, and that over Detectron2's
    own default, ``./datasets``.
    """
    if data:
        return Path(data).expanduser().absolute(), "--data"
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute(), VARIABLE
    return Path("datasets").absolute(), f"the default, as {VARIABLE} is not set"


def check(names: Iterable[str], data: str | os.PathLike | None = None) -> Path:
    """The folder that holds the data sets ``names``, or one InputError with all that is missing.

    Raises InputError for names that it has no layout for, too.
    """
    root, named_by = root_folder(data)
    known = list(dict.fromkeys(names))
    for name in known:
        if name not in LAYOUTS:
            raise unknown("data set", name, LAYOUTS, "DATASETS")
    if not root.is_dir():
        problems = [f"the folder {root} is not there"]
    else:
        problems = [
            f"{name}: {problem}" for name in known for problem in LAYOUTS[name].problems(root)
        ]
    if problems:
        lines = [f"data sets are missing in {root} (from {named_by}):"]
        lines += [f"  {problem}" for problem in problems]
        lines += ["expected below that folder, as for Detectron2:"]
        lines += [f"  {name}: {LAYOUTS[name].expected}" for name in known]
        lines += [
            f"Name the folder with --data DIR or {VARIABLE}=DIR. Without the real data, "
            "'densessl scenes DIR' writes a small stand-in for --mini."
        ]
        raise InputError("\n".join(lines))
    return root
