"""Whether the data sets of a protocol are there and right, asked before anything runs."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from densessl.core.errors import InputError, unknown

from .custom import NAMES as CUSTOM
from .inspection import some
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


def check(
    names: Iterable[str], data: str | os.PathLike | None = None, stand_in: bool = False
) -> Path:
    """The folder that holds the data sets ``names``, or one InputError with all that is wrong.

    Looks at all file names and at a sample of the labels of each; a number of images that is not
    the real data set's is a warning, but for a ``stand_in`` (``--mini``). The user's own data
    (``custom.NAMES``) are none of its business: :func:`custom.read` checks them. Raises InputError
    for names that it has no layout for, too.
    """
    root, named_by = root_folder(data)
    known = [name for name in dict.fromkeys(names) if name not in CUSTOM]
    for name in known:
        if name not in LAYOUTS:
            raise unknown("data set", name, LAYOUTS, "DATASETS")
    if not known:
        return root
    problems, counts = [], {}
    if not root.is_dir():
        problems.append(f"the folder {root} is not there")
    else:
        for name in known:
            found = LAYOUTS[name].inspect(root)
            problems += [f"{name}: {problem}" for problem in found.problems]
            counts[name] = found.images
    if problems:
        raise InputError(_message(root, named_by, known, problems))
    if not stand_in:
        remark_on_counts(counts, root)
    return root


def _message(root: Path, named_by: str, names: list[str], problems: list[str]) -> str:
    lines = [f"data sets are missing or not right in {root} (from {named_by}):"]
    lines += [f"  {problem}" for problem in problems]
    lines += ["expected below that folder, as for Detectron2 (page 'Data' of the documentation):"]
    lines += [f"  {name}: {LAYOUTS[name].expected}" for name in names]
    lines += [advice([name for name in names if not LAYOUTS[name].drawn])]
    return "\n".join(lines)


def advice(undrawn: Sequence[str], more: str = "") -> str:
    """What to do about missing data sets; ``undrawn``: those that scenes hold no stand-in of,
    ``more``: what to take instead of them."""
    place = f"Name the folder with --data DIR or {VARIABLE}=DIR."
    if not undrawn:
        return (
            f"{place} Without the real data, 'densessl scenes DIR' writes a small stand-in for "
            "--mini."
        )
    return f"{place} Scenes hold no stand-in of {some(undrawn)} for --mini{more}."


def remark_on_counts(counts: dict[str, int], root: Path) -> None:
    """One warning on all data sets (name: images) that do not have the real one's number."""
    other = [
        f"{name} has {count}, not {LAYOUTS[name].official}"
        for name, count in counts.items()
        if count != LAYOUTS[name].official
    ]
    if other:
        logging.getLogger("densessl").warning(
            "not the number of images of the real data sets, so metrics compare with no paper's: "
            "in %s, %s",
            root,
            ", ".join(other),
        )
