"""Files that are either whole or not there: written beside their place, then renamed; and the
reading of texts in whichever form of Unicode they are."""

import errno
import hashlib
import io
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from . import names
from .errors import EnvironmentLacks, InputError

NO_FILES = {
    stat.S_ISFIFO: "FIFO",
    stat.S_ISSOCK: "socket",
    stat.S_ISCHR: "device",
    stat.S_ISBLK: "device",
}
_cleared: set[Path] = set()  # folders in which this process has looked for others' halves
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def standing(folder: str | os.PathLike) -> Path:
    """``folder``, or the nearest folder above it that is there; nothing is made.

    Raises NotADirectoryError or PermissionError where ``folder`` cannot be made or written to.
    """
    folder = Path(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
    return there


@contextmanager
def unmade_when_refused(folder: str | os.PathLike):
    """Where the work inside raises, the empty folders that it made down to ``folder`` go again."""
    folder = Path(folder).absolute()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):  # not made, or no longer empty
                path.rmdir()
        raise


@contextmanager
def atomic(path: str | os.PathLike):
    """Open ``path`` for binary writing; it appears complete on a clean exit and not otherwise.

    The bytes reach the disk (fsync) before the rename, so a crash leaves the old file or the new
    one. Each process writes to a name of its own; the first time in a folder it deletes there what
    killed ones left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (folder := path.parent.absolute()) not in _cleared:
        _cleared.add(folder)
        clear_partials(folder, alone=False)
    host = socket.gethostname()  # several machines may share the folder, and their process ids
    partial = path.with_name(f".{path.name}.{host}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno in DISK_FULL:
            error.filename = os.fspath(path)  # what cannot be written has no name, or the partial's
        raise
    finally:
        partial.unlink(missing_ok=True)


def clear_partials(*folders: Path, alone: bool = True) -> None:
    """Delete what killed writers left of their files (:func:`atomic`) in these folders.

    For who writes there ``alone``: the half of a writer at work goes, too. Otherwise those go whose
    writer was a process of this machine that is no more.
    """
    for folder in folders:
        for partial in folder.glob(".*.partial"):
            if alone or _is_left(partial):
                partial.unlink(missing_ok=True)


def _is_left(partial: Path) -> bool:
    name, _, process = partial.name.removesuffix(".partial").rpartition(".")
    here = name.endswith(f".{socket.gethostname()}")
    return here and not os.path.exists(f"/proc/{process}")


def require_file(path: str | os.PathLike) -> None:
    """Raise OSError unless ``path`` is a regular file (or a folder, which says so when opened).

    To open a FIFO would wait for its writer, and a device may do anything.
    """
    mode = os.stat(path).st_mode
    kind = next((name for is_one, name in NO_FILES.items() if is_one(mode)), None)
    if kind:
        raise OSError(errno.EINVAL, f"it is a {kind}, and no file", os.fspath(path))


@contextmanager
def full_disk_reported(path: Path) -> Iterator[None]:
    """Turn 'disk full' (or quota, or file size limit) into one message: of the file that the error
    names, otherwise of ``path``."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error  # torch wraps an error of the stream in its own
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in DISK_FULL:
                free = shutil.disk_usage(path.parent).free
                file = cause.filename or path
                raise EnvironmentLacks(
                    f"cannot write {file}: {cause.strerror} ({free / 1e6:.0f} MB free). "
                    "The checkpoints so far are intact; make room and run the same command again"
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise


def write_atomic(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write(stream)`` on a new file that takes the name ``path`` when it is complete."""
    with atomic(path) as stream:
        write(stream)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write ``text`` (UTF-8, but for bytes of names that are not) atomically."""
    write_atomic(path, lambda stream: stream.write(text.encode("utf-8", names.ERRORS)))


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def walk(
    folder: str | os.PathLike, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk`` in the order of the names, without hidden folders, through links.

    A folder that a link leads back to comes once. The folders given may be taken out of their list,
    as with ``os.walk``; ``onerror`` gets the error of one that cannot be listed, which is passed
    over without it.
    """
    seen, top = set(), os.fspath(folder)
    reals = {top: os.path.realpath(top)}  # of the folders to come
    for directory, folders, files in os.walk(top, followlinks=True, onerror=onerror):
        real = reals.pop(directory)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            path = os.path.join(directory, name)
            linked = os.path.islink(path)  # realpath would ask of every folder above, too
            reals[path] = os.path.realpath(path) if linked else os.path.join(real, name)
        yield directory, folders, files


def read_text(path: str | os.PathLike, errors: str = "strict") -> str:
    """The text of a file that a person made: UTF-8, UTF-16 or UTF-32, with a byte order mark or
    without, any ends of lines; :func:`decode` says how. Raises OSError and UnicodeDecodeError."""
    return decode(Path(path).read_bytes(), errors)


def decode(data: bytes, errors: str = "strict") -> str:
    """Bytes as text, each end of a line as ``\\n``.

    The form is that of the byte order mark; without one, that of the zero bytes of the first two
    characters, which are taken to be ASCII, as in RFC 4627; else UTF-8. ``errors``: as of
    ``bytes.decode``.
    """
    form = json.detect_encoding(data[:4])
    return io.TextIOWrapper(io.BytesIO(data), encoding=form, errors=errors).read()


def parse_json(text: str | bytes, **options: Any) -> Any:
    """:func:`json.loads` that raises nothing but ValueError, whatever the text is."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | os.PathLike) -> Any:
    """The value of a JSON file, read as :func:`read_text` does.

    Raises OSError, and ValueError for what is no text or no JSON.
    """
    return parse_json(read_text(path))


def read_object(
    path: str | os.PathLike, what: str, missing: str = "there is no such file", **options: Any
) -> dict[str, Any]:
    """The object that a JSON file holds; ``options``: of :func:`json.loads`.

    Raises InputError that names the file: with ``missing`` where it is not there, else that it is
    not ``what`` it should be.
    """
    try:
        values = parse_json(read_text(path), **options)
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not {what}: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is not {what}: it holds a {type(values).__name__}")
    return values


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
