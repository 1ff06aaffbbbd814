"""What is read once from a large file, and kept for the next run: arrays, and what they are of."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from densessl.core import archive, home
from densessl.core.files import write_atomic

Made = TypeVar("Made")


def folder(kind: str) -> Path | None:
    """Of the user's cache, for what is read of files of a kind; None for a user without a home."""
    above = home.cache()
    return None if above.startswith("~") else Path(above, kind)


def of_user(kind: str, file: str | os.PathLike) -> list[Path]:
    """Where in the user's cache what was read from ``file`` may be kept; nowhere for a user without
    a home."""
    above, path = folder(kind), Path(file)
    key = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    return [above / f"{path.name}.{key}.index.npz"] if above else []


def load(
    paths: Iterable[Path],
    facts: Iterable[int],
    read: Callable[[Mapping[str, np.ndarray]], Made | None],
) -> Made | None:
    """What ``read`` makes of the arrays in the first file that has them of these ``facts`` and is
    sound; None without one."""
    for path in paths:
        try:
            archive.check_file(path)
            with np.load(path, allow_pickle=False) as saved:
                if saved["facts"].tolist() == [*facts] and (made := read(saved)) is not None:
                    return made
        except Exception:  # there is none, or it is damaged in one of many ways: make it again
            continue
    return None


def keep(paths: Iterable[Path], facts: Iterable[int], arrays: Mapping[str, Any]) -> None:
    """Write the arrays to the first path that takes them; without one the next run makes them."""
    made_from = np.array([*facts], dtype=np.int64)
    for path in paths:
        try:
            write_atomic(path, lambda stream: np.savez(stream, facts=made_from, **arrays))
            return
        except OSError:
            continue
