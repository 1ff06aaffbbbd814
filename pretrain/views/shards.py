"""Images in tar files (shards), as webdataset and tar write them, by number and in any order.

Why the shards are not streamed one after the other, as webdataset does: there the order comes from
a shuffle of shards and a buffer in every loader process, so it depends on how many of these there
are, and a run cannot resume in the middle of an epoch without reading up to there. Here an index
says where in which shard each image lies, and one read fetches it. So a run from shards is the run
from the folder that holds files of the same names in the same order, and resumes at any step.

Shards in the order of a folder (GNU tar; 10,000 images each)::

    cd imagenet/train
    find . -name '*.JPEG' | LC_ALL=C sort | split -a 6 -d -l 10000 - /tmp/part-
    for part in /tmp/part-*; do tar -cf "shards/train-${part##*-}.tar" -T "$part"; done

or with webdataset (what else a sample holds is left alone)::

    with webdataset.ShardWriter("shards/train-%06d.tar", maxcount=10000) as sink:
        for key, image, label in samples:
            sink.write({"__key__": key, "jpg": image, "cls": label})
"""

import errno
import io
import itertools
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from densessl.core.errors import InputError
from densessl.core.remote import Address, cache_folder, fetched

from ..config import Location
from .shard_index import read_indices, version
from .sources import NAMED, ImageSource

OPEN_SHARDS = 64  # a process keeps so many open
MOST_SHARDS = 100_000  # of a pattern
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class ShardSource(ImageSource):
    """The images of tar files: a folder of ``.tar`` files, one, or a pattern of a range.

    A member whose name ends as an image's is an image; others (``.cls``, ``.json``, …) are left
    alone. The numbers follow the shards' names, and in a shard the order of its members. Raises
    InputError for shards that are missing, empty, cut off, damaged or compressed.
    """

    def __init__(self, path: Location, cache: str = ""):
        self.shards = find_shards(path)
        self.root = self.shards[0].parent
        self.where = f"DATA.PATH {path} (shards)"
        self.cache = cache_folder(cache, "DATA.CACHE") if isinstance(path, Address) else None
        self._versions = [version(shard) for shard in self.shards]
        indices = read_indices(self.shards, self._versions, self.cache)
        self._firsts = np.cumsum([0] + [len(each.ends) for each in indices], dtype=np.int64)
        self._offsets = np.concatenate([each.offsets for each in indices])
        self._sizes = np.concatenate([each.sizes for each in indices])
        self._buffer = np.concatenate([each.names for each in indices])
        starts = np.cumsum([0] + [len(each.names) for each in indices], dtype=np.int64)
        ends = [each.ends + start for each, start in zip(indices, starts[:-1], strict=True)]
        self._ends = np.concatenate(ends)
        self._opened = lru_cache(OPEN_SHARDS)(self._open_shard)

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._firsts, index, side="right")) - 1

    def path(self, index: int) -> str:
        """The shard of an image and its name there, for messages."""
        name = self.name(index)
        return os.path.join(self.shards[self._shard(index)], name)

    def open(self, index: int) -> str | BinaryIO:
        """The bytes of an image, by one read that leaves no position behind: safe after a fork."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        shard = self._opened(self._shard(index))
        return shard.read(int(self._sizes[index]), int(self._offsets[index]))

    def _open_shard(self, number: int) -> "_OpenShard | _RemoteShard":
        path = self.shards[number]
        shard = _OpenShard(path) if isinstance(path, Path) else _RemoteShard(path, self.cache)
        if shard.version() != self._versions[number]:  # what is read would be no image, or another
            raise OSError(errno.ESTALE, "the shard has changed since the start", shard.path)
        return shard

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._opened = lru_cache(OPEN_SHARDS)(self._open_shard)


class _OpenShard:
    """A shard's descriptor, closed once nobody reads from it any more."""

    def __init__(self, path: Path):
        self.path = str(path)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def version(self) -> tuple[int, int]:
        stat = os.fstat(self._file)
        return stat.st_size, stat.st_mtime_ns

    def read(self, size: int, offset: int) -> BinaryIO:
        data = os.pread(self._file, size, offset)
        while len(data) < size:  # a network file system may give less at once
            more = os.pread(self._file, size - len(data), offset + len(data))
            if not more:
                raise OSError(errno.ESTALE, "the shard has become shorter", self.path)
            data += more
        return io.BytesIO(data)


class _RemoteShard:
    """A shard of which each image is fetched by itself."""

    def __init__(self, address: Address, cache: Path | None):
        assert cache is not None, "of shards beyond a disk there is one"
        self.address, self.cache, self.path = address, cache, str(address)
        self._version = address.version()

    def version(self) -> tuple[int, int]:
        return self._version

    def read(self, size: int, offset: int) -> str | BinaryIO:
        return fetched(self.address, self.cache, self._version[1], (offset, size))


def find_shards(path: Location) -> list[Location]:
    """The tar files that ``DATA.PATH`` names, in order; InputError where there are none."""
    if path.is_dir():
        # hidden ones are other systems' remarks on files
        files = sorted(each.name for each in path.iterdir() if not each.name.startswith("."))
        shards = [path / name for name in files if name.endswith(".tar")]
        if not shards:
            packed = [path / name for name in files if ".tar." in name or name.endswith(".tgz")]
            packed = [each for each in packed if not each.name.endswith(".npz")]
            hint = f" (but {packed[0].name}: shards must not be compressed)" if packed else ""
            raise InputError(f"DATA.PATH: there is no .tar file in {path}{hint}")
        return shards
    if path.exists():
        return [path]
    shards = [type(path)(name) for name in expand(str(path))]
    missing = [shard for shard in shards if not shard.exists()]
    if missing and len(shards) == 1:
        whence = f" (looked from {Path.cwd()})" if isinstance(path, Path) else ""
        raise InputError(
            f"DATA.PATH: {path} does not exist{whence}; DATA.SOURCE shards "
            "takes a folder of .tar files, one such file, or a pattern (train-{000..146}.tar)"
        )
    if missing:
        more = ", …" if len(missing) > NAMED else ""
        raise InputError(
            f"DATA.PATH: {len(missing)} of the {len(shards)} shards of {path} do not exist: "
            f"{', '.join(map(str, missing[:NAMED]))}{more}"
        )
    return shards


def expand(pattern: str) -> list[str]:
    """The names of a pattern with ranges: ``a-{08..10}.tar`` is a-08.tar, a-09.tar, a-10.tar."""
    ranges = []
    for first, last in RANGE.findall(pattern):
        if int(first) > int(last):
            raise InputError(f"DATA.PATH: the range {{{first}..{last}}} of {pattern} is empty")
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        ranges.append((int(first), int(last), width))
    count = np.prod([float(last - first + 1) for first, last, _ in ranges])
    if count > MOST_SHARDS:
        raise InputError(f"DATA.PATH: {pattern} names more than {MOST_SHARDS} shards")
    numbers = [
        [f"{number:0{width}d}" for number in range(first, last + 1)]
        for first, last, width in ranges
    ]
    between = RANGE.sub("\0", pattern).split("\0")
    return [
        "".join(itertools.chain(*zip(between, (*chosen, ""), strict=True)))
        for chosen in itertools.product(*numbers)
    ]
