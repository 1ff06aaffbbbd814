"""Files of ``torch.save`` that are whole, or not there, or known to be damaged.

A file takes its final name only when all its bytes are on the disk. Where it is checked, its
SHA-256 lies beside it before that (``sha256sum -c`` reads the sidecar), so that damage that comes
later (a truncated copy, a flipped bit) is seen.
"""

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import torch

from . import files
from .errors import InputError


def save(path: Path, state: Any, *, checked: bool = False) -> None:
    """``torch.save`` to ``path`` atomically; ``checked``: with its SHA-256 in a sidecar.

    Raises EnvironmentLacks when the disk is full, leaving ``path`` as it was.
    """
    with files.full_disk_reported(path), files.atomic(path) as stream:
        if not checked:
            torch.save(state, stream)
            return
        hashing = _Hashing(stream)
        torch.save(state, hashing)  # type: ignore[arg-type]  # it writes and flushes, no more
        files.write_text(sidecar(path), f"{hashing.digest.hexdigest()}  {path.name}\n")


def load(path: Path, cure: str) -> Any:
    """What :func:`save` wrote, on the CPU, with nothing run.

    Raises InputError for a damaged file; ``cure``: what to do about it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen kinds for damaged files
        raise InputError(f"{path} is damaged; {cure}") from None


def sidecar(path: Path) -> Path:
    """The file beside ``path`` that holds its SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def damage(path: Path) -> str | None:
    """What is wrong with a checked file, in words; None when its bytes are those once written."""
    try:
        expected = sidecar(path).read_text().split()[0]
    except FileNotFoundError:
        return f"{sidecar(path).name} is missing"
    except (IndexError, UnicodeDecodeError):
        return f"{sidecar(path).name} is not a checksum"
    if path.stat().st_size == 0:
        return "it is empty"
    if files.sha256(path) != expected:
        return "its SHA-256 is not the one written beside it"
    return None


def remove(path: Path) -> None:
    """Delete a checked file, then its sidecar: never one without the other in between."""
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)


class _Hashing:
    """A binary stream that hashes what passes through it; torch.save only ever appends."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.digest = stream, hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        return self.stream.write(data)

    def flush(self) -> None:
        self.stream.flush()
