"""Files of ``torch.save`` that are whole, or not there, or known to be damaged.

A file takes its final name only when all its bytes are on the disk. Where it is checked, its
SHA-256 lies beside it before that (``sha256sum -c`` reads the sidecar), so that damage that comes
later (a truncated copy, a flipped bit) is seen. A run need not wait for it: :func:`snapshot` is a
state as it is now, which :class:`Writing` brings to the disk beside the steps that follow.
"""

import hashlib
import logging
import os
import re
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from . import files, watchdog
from .distributed import is_main
from .errors import InputError

PIECE = 1 << 26  # bytes

logger = logging.getLogger("densessl")


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


def damage(path: Path, *, copied: bool = False) -> str | None:
    """What is wrong with a checked file, in words; None when its bytes are those once written.

    One that may have been ``copied`` without its sidecar is held against the weaker checksums
    (CRC-32) that ``torch.save`` itself writes.
    """
    try:
        expected = sidecar(path).read_text().split()[0]
    except FileNotFoundError:
        return _damaged_member(path) if copied else f"{sidecar(path).name} is missing"
    except (IndexError, UnicodeDecodeError):
        return f"{sidecar(path).name} is not a checksum"
    if path.stat().st_size == 0:
        return "it is empty"
    if files.sha256(path) != expected:
        return "its SHA-256 is not the one written beside it"
    return None


def _damaged_member(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):  # of another program, or cut short: who reads it says so
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        return str(error)
    return f"the CRC-32 of {member} in it is not the one written with it" if member else None


def remove(path: Path) -> None:
    """Delete a checked file, then its sidecar: never one without the other in between."""
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)


def snapshot(state: Any) -> Any:
    """``state`` at this moment, in the memory of the CPU: no later step changes it.

    Dicts, lists and tuples are copied with what they hold; of tensors that are the same memory one
    copy is made, and a file holds it once.
    """
    copies: dict[tuple, Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            which = value.device, value.data_ptr(), value.shape, value.stride(), value.dtype
            if which not in copies:
                copies[which] = value.detach().to("cpu", copy=True)
            return copies[which]
        if isinstance(value, dict):
            return {name: copied(each) for name, each in value.items()}
        return type(value)(map(copied, value)) if isinstance(value, list | tuple) else value

    return copied(state)


class Writing:
    """Writes files in a thread of its own, one piece of work at a time, while a run continues.

    A block: its end waits until all is on the disk. What fails there is raised by :meth:`check` or
    :meth:`wait`, or by the end of the block; where that ends by another error, it is logged.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Writing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Exception as error:
            if kind is None:
                raise
            logger.warning("%s", error)

    def begin(self, work: Callable[[], object]) -> None:
        """Do ``work`` beside what follows; the one before it is waited for."""
        self.wait()
        self._thread = threading.Thread(target=self._do, args=(work,), name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what has failed so far; nothing is waited for."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until all is on the disk; raises what has failed."""
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # also too little memory: the run raises it
            self._error = error


class NumberedCheckpoints:
    """The checked files ``folder/PREFIX<number>.pth``: a kill leaves those before it as they were.

    ``keep`` newest ones stay; one whose number is a multiple of ``keep_every`` (0: none) stays for
    good. ``cure``: what to do when all are damaged. Only one process may call :meth:`save`.
    """

    def __init__(self, folder: Path, prefix: str, digits: int, cure: str, keep: int = 2):
        self.folder, self.prefix, self.digits, self.cure = Path(folder), prefix, digits, cure
        self.keep, self.keep_every = keep, 0
        self.damaged: set[Path] = set()

    def path(self, number: int) -> Path:
        """Where the checkpoint of this number lies."""
        return self.folder / f"{self.prefix}{number:0{self.digits}d}.pth"

    def number(self, path: Path) -> int | None:
        """The number of the checkpoint ``path``; None for other files."""
        found = re.fullmatch(rf"{self.prefix}(\d{{{self.digits},}})\.pth", path.name)
        return int(found[1]) if found else None

    def found(self) -> list[tuple[int, Path]]:
        """(number, file) of every checkpoint that is there, oldest first."""
        numbered = [(self.number(file), file) for file in self.folder.glob(f"{self.prefix}*.pth")]
        return sorted((number, file) for number, file in numbered if number is not None)

    def save(self, number: int, state: dict[str, Any]) -> Path:
        """Write ``state`` as the checkpoint of this number, then delete those outlived.

        Raises EnvironmentLacks when the disk is full; the earlier checkpoints are then untouched.
        """
        path = self.path(number)
        save(path, state, checked=True)
        self.damaged.discard(path)
        self._prune(number)
        return path

    def whole(self) -> Path | None:
        """The newest checkpoint that is as it was written; None where there is none at all.

        Each damaged one above it is named in the log of the main process. Raises InputError when
        all are damaged: nothing starts from scratch over its remains.
        """
        found = self.found()
        for _, path in reversed(found):
            reason = damage(path)
            if reason is None:
                return path
            self.damaged.add(path)
            if is_main():
                logger.warning("%s is damaged (%s); trying the one before it", path, reason)
        if found:
            raise InputError(
                f"every checkpoint in {self.folder} is damaged ({len(found)} of {len(found)}); "
                f"{self.cure}"
            )
        return None

    def clean(self) -> None:
        """Remove what a killed writer left: half-written files, sidecars without a checkpoint."""
        files.clear_partials(self.folder)
        for side in self.folder.glob(f"{self.prefix}*.pth.sha256"):
            if not side.with_suffix("").exists():
                side.unlink(missing_ok=True)

    def _prune(self, newest: int) -> None:
        overtaken = [(number, path) for number, path in self.found() if number <= newest]
        good = [(number, path) for number, path in overtaken if path not in self.damaged]
        for number, path in overtaken:
            for_good = self.keep_every and number % self.keep_every == 0
            if path in self.damaged or not (for_good or (number, path) in good[-self.keep :]):
                remove(path)


class _Hashing:
    """A binary stream that hashes what passes through it; torch.save only ever appends.

    Each PIECE is brought to the disk at once: how fast a slow one is shows while it writes, and not
    in one long wait at the end.
    """

    def __init__(self, stream: BinaryIO):
        self.stream, self.digest = stream, hashlib.sha256()
        self._waiting = 0  # bytes that may not be on the disk yet

    def write(self, data) -> int:
        self.digest.update(data)
        written = self.stream.write(data)
        self._waiting += written
        if self._waiting >= PIECE:
            self.stream.flush()
            os.fsync(self.stream.fileno())
            self._waiting = 0
        watchdog.beat()
        return written

    def flush(self) -> None:
        self.stream.flush()
