"""Files beyond a disk, ``s3://``, ``gs://`` and ``hf://``, through fsspec; fetched ones are kept.

Credentials and servers are those of fsspec's packages (environment, their own files). None is ever
part of an address here, nor of a message.
"""

import errno
import hashlib
import io
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import home, names, waiting, watchdog
from .errors import EnvironmentLacks, InputError, unknown
from .files import standing, write_atomic

Answer = TypeVar("Answer")
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}  # that fsspec asks
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, or ~/.aws; a public bucket is read with "
    "FSSPEC_S3_ANON=true",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login; a public "
    "bucket is read with FSSPEC_GS_TOKEN=anon",
    "hf": "HF_TOKEN, or hf auth login",
}
BEGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
SECRET = re.compile(r"://(?:[^/:]+:[^:]*|[^/]*)@")  # user:password@ or user@ before a bucket
BETWEEN = re.compile(f"{os.pathsep}(?!//)")  # of several places
STAMPS = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "updated", "mtime", "created")
ATTEMPTS, PAUSE = 3, 0.5  # of what may pass; seconds before the second, then twice as many
BLOCK = 8 << 20  # bytes that a file is read by
FREE, SHARE = 10 * 10**9, 0.05  # bytes, and share of a disk, the lesser of which stays free
for package in PACKAGES.values():  # they tell of each attempt, with a traceback
    logging.getLogger(package).addHandler(logging.NullHandler())


class Unreachable(EnvironmentLacks):
    """A server or its data cannot be had."""


def is_remote(text: str) -> bool:
    """Whether it is an address, and not a path."""
    return BEGIN.match(text) is not None


def split(text: str) -> list[str]:
    """The paths and addresses of a text with ``:`` between them."""
    return [part for part in BETWEEN.split(text) if part]


def require_no_secret(text: str, where: str) -> None:
    """InputError, which does not repeat it, for an address with a user or a password."""
    if SECRET.search(text):
        raise InputError(
            f"{where} has an address with a user or a password (before '@'), which would come into "
            "logs and records. Leave it out; credentials are read from the environment: "
            f"{CREDENTIALS['s3']}"
        )


@contextmanager
def required(where: str) -> Iterator[None]:
    """Before the work begins, what cannot be had is a fault of the input ``where``."""
    try:
        yield
    except Unreachable as error:
        raise InputError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Address:
    """A file or folder beyond the disk, with the part of ``pathlib.Path`` that is needed here.

    Its methods raise Unreachable where the server does not answer or refuses, EnvironmentLacks
    where its package is not installed.
    """

    url: str

    @classmethod
    def parse(cls, text: str, where: str) -> "Address":
        """InputError for a kind of address that is not known; ``where``: the option."""
        require_no_secret(text, where)
        begin = BEGIN.match(text)
        if begin is None or begin[1] not in PACKAGES:
            kind = begin[1] if begin else text
            allowed = [f"{kind}://" for kind in PACKAGES]
            raise unknown("kind of address", f"{kind}://", allowed, where)
        return cls(begin[0] + text[begin.end() :].rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Address":
        return Address(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> "Address":
        return Address(self.url.rpartition("/")[0])

    def absolute(self) -> "Address":
        return self

    def exists(self) -> bool:
        return self._kind() is not None

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def is_file(self) -> bool:
        return self._kind() == "file"

    def _kind(self) -> str | None:
        try:
            return self._info()["type"]
        except FileNotFoundError:
            return None

    def _info(self) -> dict[str, Any]:
        with waiting.wait(waiting.TIMEOUT, self._late):
            return _asked(self.url, lambda fs, path: fs.info(path))

    def _late(self) -> Unreachable:
        return Unreachable(f"{self} has not answered within {waiting.TIMEOUT:g} s")

    def version(self) -> tuple[int, int]:
        """Bytes of a file, and a number that is another one when its content has changed."""
        info = self._info()
        return int(info["size"]), _stamp(info)

    def iterdir(self) -> list["Address"]:
        """What lies in a folder, in the order of the names."""
        with waiting.wait(waiting.TIMEOUT, self._late):
            found = _asked(self.url, lambda fs, path: fs.ls(path, detail=False))
        return [self / name for name in sorted({each.rpartition("/")[2] for each in found} - {""})]

    def files(self) -> dict[str, int]:
        """The files below a folder that are not hidden: names below it, each with the number of
        its content (:meth:`version`). A server gives some thousand of them at a time."""

        def listed(fs: Any, path: str) -> dict[str, int]:
            below = f"{path.rstrip('/')}/"
            found = {
                name[len(below) :]: _stamp(info)
                for name, info in fs.find(path, detail=True).items()
                if name.startswith(below) and not name.endswith("/")
            }
            fs.invalidate_cache()  # it holds hundreds of bytes a file
            return found

        with waiting.wait(), watchdog.unhurried():
            found = _asked(self.url, listed)
        return {name: stamp for name, stamp in found.items() if "/." not in f"/{name}"}

    def read_bytes(self) -> bytes:
        """The whole file."""
        with waiting.wait():
            return self.read()

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        """``size`` bytes (None: all) from ``offset`` on; FileNotFoundError where it is gone."""
        end = None if size is None else offset + size
        data = _asked(self.url, lambda fs, path: fs.cat_file(path, start=offset, end=end))
        if size is not None and len(data) != size:
            raise Unreachable(f"{self} is shorter than it was at the start: put it back")
        return data

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """A file to read from any place of it, by blocks; errors as of :meth:`read`."""
        return io.BufferedReader(_Blocks(self), BLOCK)


class _Blocks(io.RawIOBase):
    """The bytes of an address, asked for as they are read."""

    def __init__(self, address: Address):
        self.address, self.size, self.position = address, address.version()[0], 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + (0, self.position, self.size)[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self.size - self.position), 0)
        if count:
            with waiting.wait(waiting.TIMEOUT, self.address._late):
                buffer[:count] = self.address.read(count, self.position)
        self.position += count
        return count


def _stamp(info: dict[str, Any]) -> int:
    """A number of 63 bits for the content of a file, from what its server says of it."""
    stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
    digest = hashlib.sha256(f"{info.get('size')} {stamp}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


# ---- asking ----


def _asked(url: str, question: Callable[[Any, str], Answer]) -> Answer:
    """The answer of the server of ``url``; what may pass is tried again.

    Raises FileNotFoundError where it has no such file, Unreachable where it gives no answer,
    EnvironmentLacks without the package for it.
    """
    kind = url.partition("://")[0]
    for attempt in range(ATTEMPTS):
        try:
            from fsspec import filesystem

            fs = filesystem(kind)  # of this process: connections do not outlive a fork
            return question(fs, fs._strip_protocol(url))
        except ImportError as error:
            raise EnvironmentLacks(
                f"{url} is read by the package {PACKAGES[kind]}, which cannot be imported "
                f"({_reason(error)}); fix it with: pip install 'densessl[remote]'"
            ) from None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from None
        except Exception as error:  # each package has kinds of its own
            if type(error).__module__.startswith(f"{__package__.partition('.')[0]}."):
                raise  # of a wait that was ended
            if _is_refused(error):
                raise Unreachable(
                    f"access to {url} is refused ({_reason(error)}). Credentials are "
                    f"{CREDENTIALS.get(kind, 'missing')}"
                ) from None
            if attempt == ATTEMPTS - 1:
                raise Unreachable(
                    f"{url} cannot be reached, in {ATTEMPTS} attempts ({_reason(error)}). Is there "
                    "a network, and is the server's address right?"
                ) from None
        time.sleep(PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _is_refused(error: Exception) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
    by_name = "Credentials" in type(error).__name__ or "Token" in type(error).__name__
    return isinstance(error, PermissionError) or by_name or status in (401, 403)


def _reason(error: Exception) -> str:
    """A library's message in a line, without what is secret in the environment or in an address."""
    text = re.sub(r"\?\S+", "?…", f"{type(error).__name__}: {error}".split("\n")[0])
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", name):
            text = text.replace(value, "…")
    return names.brief(text, 200)


# ---- keeping ----


def cache_folder(option: str, where: str) -> Path:
    """The folder for fetched files: ``option``, else that of the user; InputError where nothing can
    be written there. ``where``: the option's name."""
    folder = Path(option or os.path.join(home.cache(), "remote"))
    try:
        if str(folder).startswith("~"):  # a user without a home
            raise PermissionError(errno.ENOENT, "there is no home folder", str(folder))
        standing(folder)
    except OSError as error:
        raise InputError(
            f"{where}: fetched files cannot be kept in {folder} ({error.strerror}: "
            f"{error.filename}); give a folder that can be written to"
        ) from None
    if not _has_room(folder, 0):
        logging.getLogger("densessl").warning(
            "the disk of %s (%s) is nearly full: images are not kept, but fetched each time",
            folder,
            where,
        )
    return folder


def _has_room(folder: Path, size: int) -> bool:
    disk = shutil.disk_usage(standing(folder))
    return disk.free - size >= min(SHARE * disk.total, FREE)


def fetched(
    address: Address, folder: Path, stamp: int = 0, part: tuple[int, int] | None = None
) -> str | io.BytesIO:
    """A file, or of it the ``part`` (offset, bytes): its copy in ``folder``, else its bytes.

    What has been fetched is kept, by address and ``stamp`` (of its content), while the disk has
    room: 5 %, or 10 GB, are left free. A copy is whole or not there, whoever is killed. Raises as
    :meth:`Address.read`.
    """
    key = hashlib.sha256(f"{address}\0{stamp}\0{part}".encode(errors=names.LIST)).hexdigest()
    copy = folder / key[:2] / key[2:34]
    if copy.is_file():
        return str(copy)
    offset, size = part or (0, None)
    data = address.read(size, offset)
    try:
        if _has_room(folder, len(data)):
            write_atomic(copy, lambda stream: stream.write(data))
            return str(copy)
    except OSError:  # full, or over its quota: it is fetched again when it is needed again
        pass
    return io.BytesIO(data)
