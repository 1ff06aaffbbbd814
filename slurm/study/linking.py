"""Folders of links: a subset of a data set in the layout of the whole."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path


def link(files: Sequence[Path], home: Path, folder: Path) -> None:
    """Links to ``files``, which lie below ``home``, at the same places below ``folder``."""
    for file in files:
        made = folder / file.relative_to(home)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.symlink_to(file.absolute())


def once(folder: Path, write: Callable[[Path], None]) -> None:
    """Have ``write`` make ``folder``, unless it is there; it appears whole."""
    if folder.is_dir():
        return
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    part.mkdir(parents=True)
    write(part)
    part.rename(folder)
