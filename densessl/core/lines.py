"""Files that grow piece by piece, as logs do, and whose full disk ends nothing."""

import logging
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from . import names

MOST = 100_000  # pieces kept while they cannot be written; then the oldest are given up

_waiting: set[str] = set()  # files of this process that cannot be written now


class Growing:
    """Appends pieces to ``path``, each whole or not at all.

    Where that fails, as on a full disk, the pieces are kept and written in their order once it is
    possible again. One warning is logged for all such files of a process.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.kept: deque[bytes] = deque(maxlen=MOST)

    def add(self, piece: bytes) -> None:
        """Append ``piece``."""
        self.kept.append(piece)
        self._try()

    def sync(self) -> None:
        """Bring what is written to the disk."""
        self._try()
        with suppress(OSError):  # what is not there yet was reported
            file = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def close(self) -> None:
        """Write what still waits, if that is possible now."""
        self._try()
        _waiting.discard(os.fspath(self.path))

    def _try(self) -> None:
        if not self.kept:
            return
        try:
            self._append()
        except OSError as error:
            failed(self.path, error)
            return
        self.kept.clear()
        if os.fspath(self.path) in _waiting:
            _waiting.discard(os.fspath(self.path))
            if not _waiting:
                logging.getLogger("densessl").info("the logs can be written again")

    def _append(self) -> None:
        data = memoryview(b"".join(self.kept))
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            file = os.open(self.path, how, 0o666)
        except FileNotFoundError:
            self.path.parent.mkdir()
            file = os.open(self.path, how, 0o666)
        try:
            end = os.fstat(file).st_size
            try:
                while data:
                    data = data[os.write(file, data) :]
            except OSError:
                with suppress(OSError):  # of the first error
                    os.ftruncate(file, end)  # no half of a piece
                raise
        finally:
            os.close(file)


class Lines(Growing):
    """A text file that grows by lines."""

    def write(self, line: str) -> None:
        """Append ``line``, without its line feed."""
        self.add(f"{line}\n".encode("utf-8", names.ERRORS))


def tail(path: str | os.PathLike, start: int = 0) -> list[str]:
    """The last lines, at most 16 KiB, that a file has from ``start`` on; none without a file.

    Control characters, which could steer a terminal, are escaped.
    """
    try:
        with open(path, "rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(start, end - (1 << 14)))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return [names.one_line(line.expandtabs()) for line in lines]


def failed(path: str | os.PathLike, error: OSError) -> None:
    """Warn that ``path`` cannot be written, if no other file of this process waits already."""
    first = not _waiting
    _waiting.add(os.fspath(path))
    if first:
        logging.getLogger("densessl").warning(
            "cannot write %s: %s; the run continues, and what the logs lack is written once that "
            "is possible",
            names.one_line(path),
            error.strerror or error,
        )
