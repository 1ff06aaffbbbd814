"""Where in a tar file each image lies: read once from its headers, and kept for the next run."""

import hashlib
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import normpath

import numpy as np

from densessl.core import waiting
from densessl.core.errors import InputError
from densessl.core.files import full_disk_reported, standing
from densessl.core.lock import locked
from densessl.core.names import LIST
from densessl.core.progress import Bar
from densessl.core.remote import Address
from densessl.decoding import SUFFIXES, is_image

from ..config import Location
from . import kept
from .sources import pack

VERSION = 3  # of the kept files; another set of suffixes is another version
BLOCK = 512  # bytes; of these a tar file consists
MB = 1 << 20
STEP = 16 * MB  # bytes between two reports of progress
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass
class Index:
    """Where the images of a shard lie: ``names`` is a buffer, ``ends`` as in ImageSource."""

    offsets: np.ndarray  # int64 [n], of the first byte in the shard
    sizes: np.ndarray  # int64 [n], bytes
    ends: np.ndarray  # int64 [n]
    names: np.ndarray  # uint8

    def fits(self, size: int) -> bool:
        """Whether it can be the index of a shard of ``size`` bytes."""
        arrays = (self.offsets, self.sizes, self.ends)
        return (
            all(each.dtype == np.int64 and each.shape == self.ends.shape for each in arrays)
            and self.names.dtype == np.uint8
            and len(self.ends) > 0
            and bool((np.diff(self.ends, prepend=0) > 0).all() and self.ends[-1] == len(self.names))
            and bool((self.offsets >= 0).all() and (self.sizes >= 0).all())
            and bool((self.offsets + self.sizes <= size).all())
        )


Version = tuple[int, int]  # of a shard: its bytes, and a number that changes with its content


def version(shard: Location) -> Version:
    """What is compared to see whether a shard has changed."""
    if isinstance(shard, Address):
        return shard.version()
    stat = shard.stat()
    return stat.st_size, stat.st_mtime_ns


def read_indices(
    shards: list[Location], versions: list[Version], cache: Path | None = None
) -> list[Index]:
    """The index of every shard: as kept by an earlier run, or made now and kept.

    ``cache``: the folder that keeps those of shards beyond a disk.
    """
    indices = {}
    for shard, facts in zip(shards, versions, strict=True):
        if (index := _kept(shard, facts, cache)) is not None:
            indices[shard] = index
    todo = {
        shard: facts for shard, facts in zip(shards, versions, strict=True) if shard not in indices
    }
    if todo:
        # By bytes, since how many images there are is what the index tells.
        total = sum(size for size, _ in todo.values())
        end = -(-total // MB)
        with Bar("index of the shards, MB", end) as bar:
            before = 0

            def passed(done: int) -> None:
                bar.advance((before + done) // MB - bar.done)

            for shard, facts in todo.items():
                indices[shard] = _made(shard, facts, cache, passed)
                before += facts[0]
            bar.advance(end - bar.done)
    return [indices[shard] for shard in shards]


def _made(
    shard: Location, facts: Version, cache: Path | None, progress: Callable[[int], None]
) -> Index:
    """The index of a shard, kept for the next run. One beyond a disk is read whole for it, so of
    several processes one does that, and the others wait."""
    if cache is not None:
        lock = index_paths(shard, cache)[0].with_suffix(".lock")
        with waiting.wait(), full_disk_reported(standing(cache) / "shards"), locked(lock, None):
            return _kept(shard, facts, cache) or _kept_new(shard, facts, cache, progress)
    return _kept_new(shard, facts, cache, progress)


def _kept_new(
    shard: Location, facts: Version, cache: Path | None, progress: Callable[[int], None]
) -> Index:
    index = scan(shard, progress)
    _keep(shard, facts, cache, index)
    return index


def scan(shard: Location, progress: Callable[[int], None] = lambda done: None) -> Index:
    """The index of a tar file, from its headers; ``progress(done)`` is told of bytes passed.

    Raises InputError for a file that is empty, cut off, damaged, compressed, or without images.
    """
    names, offsets, sizes, reported = [], [], [], 0
    where: dict[str, tuple[int, int]] = {}
    _refuse_compressed(shard)
    try:
        with shard.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # a million of them take a gigabyte
                if tar.offset - reported >= STEP:
                    reported = tar.offset
                    progress(reported)
                name = _clean(member.name)
                if member.isdir() or not _is_image(name):
                    continue
                place: tuple[int, int] | None = (member.offset_data, member.size)
                if member.islnk():  # to a member before it, which has the bytes
                    place = where.get(_clean(member.linkname))
                elif not member.isreg() or member.issparse():
                    place = None
                if place is None:
                    raise InputError(
                        f"DATA.PATH: {shard} does not hold the bytes of {name} (a link, or a "
                        "sparse file); write it again with tar -h and without tar -S"
                    )
                where[name] = place
                names.append(name)
                offsets.append(place[0])
                sizes.append(place[1])
            _require_end(shard, tar.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise InputError(
            f"DATA.PATH: {shard} is no tar file, or cut off or damaged: {error}"
        ) from None
    if not names:
        raise InputError(f"DATA.PATH: {shard} has no images ({', '.join(SUFFIXES[:4])}, …)")
    starts, lengths = (np.array(each, dtype=np.int64) for each in (offsets, sizes))
    return Index(starts, lengths, *pack(names))


def _clean(name: str) -> str:
    """A member's name as a folder would have it: './a/b.jpg' is 'a/b.jpg'."""
    return normpath(name).lstrip("/")


def _is_image(name: str) -> bool:
    """As in a folder: by its suffix, and nothing hidden."""
    hidden = any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)
    return is_image(name) and not hidden


def _refuse_compressed(shard: Location) -> None:
    try:
        with shard.open("rb") as stream:
            start = stream.read(BLOCK)
    except OSError as error:
        raise InputError(f"DATA.PATH: cannot read {shard}: {error.strerror}") from None
    if not start:
        raise InputError(f"DATA.PATH: {shard} is empty (0 bytes)")
    for magic, kind in COMPRESSED.items():
        if start.startswith(magic) and start[257:262] != b"ustar":
            raise InputError(
                f"DATA.PATH: {shard} is compressed ({kind}), and from such a file no image can be "
                f"read alone. Unpack it ({kind} -d); the images in it are compressed anyway"
            )


def _require_end(shard: Location, end: int) -> None:
    """InputError unless the end marker is at ``end``, where tarfile stopped, and nothing after it.

    tarfile takes a header that is cut off or damaged for the end.
    """
    with shard.open("rb") as stream:
        stream.seek(end)
        marker = stream.read(BLOCK)
        if len(marker) < BLOCK:
            raise InputError(
                f"DATA.PATH: {shard} is cut off: it ends at byte {end + len(marker)} without the "
                "end marker of a tar file. Copy it again, or write it again"
            )
        if any(marker):
            raise InputError(f"DATA.PATH: {shard} is damaged: there is no header at byte {end}")
        while block := stream.read(MB):
            if any(block):
                raise InputError(
                    f"DATA.PATH: {shard} goes on after its end marker at byte {end}: several tar "
                    "files in one? Join them with tar -A, or give them one by one"
                )


def index_paths(shard: Location, cache: Path | None = None) -> list[Path]:
    """Where the index of a shard may be kept: beside it, or in the user's cache folder; of one
    beyond a disk in the folder ``cache``."""
    if isinstance(shard, Address):
        assert cache is not None, "of what is fetched there is one"
        key = hashlib.sha256(str(shard).encode(errors=LIST)).hexdigest()[:16]
        return [cache / "shards" / f"{shard.name}.{key}.index.npz"]
    return [shard.with_name(f"{shard.name}.index.npz"), *kept.of_user("shards", shard)]


def _kept(shard: Location, facts: Version, cache: Path | None) -> Index | None:
    """The kept index, if there is one of this shard as it is now."""

    def read(saved: Mapping[str, np.ndarray]) -> Index | None:
        index = Index(*(saved[name] for name in ("offsets", "sizes", "ends", "names")))
        return index if index.fits(facts[0]) else None

    return kept.load(index_paths(shard, cache), (VERSION, *facts), read)


def _keep(shard: Location, facts: Version, cache: Path | None, index: Index) -> None:
    kept.keep(index_paths(shard, cache), (VERSION, *facts), vars(index))
