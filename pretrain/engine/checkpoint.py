"""Checkpoints that are whole, or not there, or known to be damaged.

A file takes its final name only when all its bytes are on the disk, and its SHA-256 lies beside it
before that (``sha256sum -c`` reads the sidecar). So a kill at any instant leaves the checkpoints
before it as they were, and damage that comes later (a truncated copy, a flipped bit) is seen.
"""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any, BinaryIO

import torch

from densessl.core import files
from densessl.core.errors import InputError

logger = logging.getLogger("densessl")

NAME = re.compile(r"step_(\d{8,})\.pth")


class Checkpoints:
    """The checkpoints of one run, in ``folder``.

    ``keep`` newest ones stay; one whose step is a multiple of ``keep_every`` (0: none) stays for
    good. Only one process of a run may call :meth:`save`.
    """

    def __init__(self, folder: Path, keep: int = 2, keep_every: int = 0):
        self.folder, self.keep, self.keep_every = Path(folder), keep, keep_every
        self.damaged: set[Path] = set()

    def path(self, step: int) -> Path:
        """Where the checkpoint after ``step`` steps lies."""
        return self.folder / f"step_{step:08d}.pth"

    def found(self) -> list[tuple[int, Path]]:
        """(step, file) of every checkpoint that is there, oldest first."""
        named = [(NAME.fullmatch(file.name), file) for file in self.folder.glob("step_*.pth")]
        return sorted((int(match[1]), file) for match, file in named if match)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write ``state`` as the checkpoint after ``step`` steps, then delete those outlived.

        Raises EnvironmentLacks when the disk is full; the earlier checkpoints are then untouched.
        """
        path = self.path(step)
        save_checked(path, state)
        self.damaged.discard(path)
        self._prune(step)
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its contents on the CPU; None for a new run.

        Each damaged one above it is named in the log. Raises InputError when all are damaged: a
        run never starts from scratch over its remains.
        """
        found = self.found()
        for _, path in reversed(found):
            if reason := damage(path):
                self.damaged.add(path)
                logger.warning("%s is damaged (%s); trying the one before it", path, reason)
                continue
            return path, torch.load(path, map_location="cpu", weights_only=True)
        if found:
            raise InputError(
                f"every checkpoint in {self.folder} is damaged ({len(found)} of {len(found)}); "
                "put a good copy back, or give another OUTPUT_DIR to start from the beginning"
            )
        return None

    def clean(self) -> None:
        """Remove what a killed run left, here and in the folder above (the run's own).

        That is: half-written files, and sidecars without a checkpoint.
        """
        for folder in (self.folder, self.folder.parent):
            for partial in folder.glob(".*.partial"):
                partial.unlink(missing_ok=True)
        for side in self.folder.glob("step_*.pth.sha256"):
            if not side.with_suffix("").exists():
                side.unlink(missing_ok=True)

    def _prune(self, newest: int) -> None:
        overtaken = [(step, path) for step, path in self.found() if step <= newest]
        good = [(step, path) for step, path in overtaken if path not in self.damaged]
        for step, path in overtaken:
            for_good = self.keep_every and step % self.keep_every == 0
            if path in self.damaged or not (for_good or (step, path) in good[-self.keep :]):
                remove(path)


def sidecar(path: Path) -> Path:
    """The file beside ``path`` that holds its SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words, or None when its bytes are those once written."""
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
    """Delete a checkpoint, then its sidecar: never a checkpoint without one in between."""
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)


def save_checked(path: Path, state: dict[str, Any]) -> None:
    """``torch.save`` to ``path`` atomically, with its SHA-256 in a sidecar.

    Raises EnvironmentLacks when the disk is full, leaving ``path`` as it was.
    """
    with files.told_when_full(path), files.atomic(path) as stream:
        hashing = _Hashing(stream)
        torch.save(state, hashing)
        files.write_text(sidecar(path), f"{hashing.digest.hexdigest()}  {path.name}\n")


class _Hashing:
    """A binary stream that hashes what passes through it; torch.save only ever appends."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.digest = stream, hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        return self.stream.write(data)

    def flush(self) -> None:
        self.stream.flush()
