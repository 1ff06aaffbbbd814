"""Archives that would unfold to far more than they are, refused from their directory.

Nothing is unpacked for it: a zip's directory says how large every member becomes.
"""

import os
import zipfile
from pathlib import Path

from .errors import EnvironmentLacks, InputError
from .limits import available_memory
from .units import byte_size

RATIO = 50  # of weights, a good compressor takes off a tenth; zeros, as of a new queue, shrink more
SMALL = 256 * 2**20  # bytes that any machine may unfold


def check_file(path: str | os.PathLike, in_memory: bool = True) -> None:
    """``check_zip`` of a file that is a zip; others, and what is no file, pass."""
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, path.stat().st_size, in_memory)
    except zipfile.BadZipFile:  # who reads it says so
        return
    except (InputError, EnvironmentLacks) as error:
        raise type(error)(f"{path}: {error}") from None


def check_zip(archive: zipfile.ZipFile, size: int, in_memory: bool = True) -> None:
    """Whether what a zip of ``size`` bytes unfolds to is in proportion, and fits into memory.

    Raises InputError for a zip bomb (also one whose members share their bytes), EnvironmentLacks
    where there is less memory than an ordinary file needs (unless it is not read ``in_memory``).
    """
    members = archive.infolist()
    check_size(size, sum(member.file_size for member in members), in_memory)
    packed = sum(member.compress_size for member in members)
    if packed > size:
        raise InputError(
            f"it is a zip bomb: its {len(members)} members of {byte_size(packed)} in a file of "
            f"{byte_size(size)} lie over each other"
        )


def check_size(size: int, unfolded: int, in_memory: bool = True) -> None:
    """The same of a file of ``size`` bytes that becomes ``unfolded`` bytes."""
    if unfolded > max(RATIO * size, SMALL):
        raise InputError(
            f"its {byte_size(size)} unfold to {byte_size(unfolded)}, "
            f"{unfolded // max(size, 1)} times as much: a zip bomb, and no file of weights; "
            f"allowed: {RATIO} times"
        )
    free = available_memory() if in_memory else None
    if free is not None and unfolded > free:
        raise EnvironmentLacks(
            f"it holds {byte_size(unfolded)}, and {byte_size(free)} of memory are free; "
            "close other programs, or convert it on a machine with more memory"
        )
