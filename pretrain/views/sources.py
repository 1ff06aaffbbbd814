"""Where images come from: folder trees, list files, COCO's JSON, shards. No labels are read."""

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from fvcore.common.config import CfgNode

from densessl.configs import FOLDER
from densessl.core.errors import InputError, nearest, unknown
from densessl.core.files import decode, parse_json, read_text, require_file, walk
from densessl.core.names import LIST, from_line, one_line
from densessl.core.progress import Bar, track
from densessl.core.remote import Address, is_remote, required
from densessl.decoding import (
    COLOURS,
    SUFFIXES,
    Region,
    describe_left_out,
    is_array,
    is_image,
    is_video,
    parse_channel_files,
)
from densessl.decoding.channel_files import ChannelFiles

from ..config import Location, data_paths, split_paths

CLASS_LISTS = {"imagenet100": FOLDER / "classes" / "imagenet100.txt"}
WITH_VIDEOS = ("folder", "list")
NAMED = 5  # missing folders that a message names


class ImageSource:
    """The images of a data set, by number.

    Names live in one byte buffer with offsets, so that loader processes share it: a list of a
    million strings would be copied into each of them as its reference counts change.
    ``left_out``: how many files beside them are no images by their names, by suffix.
    """

    left_out: Mapping[str, int] = {}

    def __init__(
        self,
        root: Location,
        names: Iterable[str],
        where: str,
        left_out: Mapping[str, int] | None = None,
    ):
        self.root, self.where = root, where
        self.left_out = left_out or {}
        self._ends, self._buffer = pack(names)
        if not len(self._ends):
            others = f"; {describe_left_out(self.left_out)}" if self.left_out else ""
            raise InputError(f"{where} has no images{others}")

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """The path of an image below ``root``."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._buffer[start : self._ends[index]].tobytes())

    def path(self, index: int) -> str:
        """The file of an image."""
        return os.path.join(self.root, self.name(index))

    def open(self, index: int) -> str | BinaryIO:
        """The file of an image, or its bytes. OSError where it is no file."""
        path = self.path(index)
        require_file(path)
        return path

    def sample(self, index: int) -> str | BinaryIO | Region | ChannelFiles:
        """What to decode for a sample: what :meth:`open` gives, a region, or several files."""
        return self.open(index)

    def fingerprint(self) -> str:
        """A SHA-256 of the names in their order: equal for equal lists, wherever they lie."""
        digest = hashlib.sha256(self._ends.data)
        digest.update(self._buffer.data)
        return digest.hexdigest()


class JoinedSource(ImageSource):
    """Several sources as one, the images of one after those of the other."""

    def __init__(self, parts: Sequence[ImageSource]):
        self.parts = list(parts)
        self.root, self.where = self.parts[0].root, " and ".join(part.where for part in self.parts)
        self._ends = np.cumsum([len(part) for part in self.parts], dtype=np.int64)
        self.left_out = sum((Counter(part.left_out) for part in self.parts), Counter())

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _find(self, index: int) -> tuple[ImageSource, int]:
        """The source of an image, and its number there."""
        part, number = part_of(self._ends, index)
        return self.parts[part], number

    def name(self, index: int) -> str:
        """The file of an image: names below several folders may be equal."""
        return self.path(index)

    def path(self, index: int) -> str:
        part, number = self._find(index)
        return part.path(number)

    def open(self, index: int) -> str | BinaryIO:
        part, number = self._find(index)
        return part.open(number)

    def fingerprint(self) -> str:
        """A SHA-256 of the sources' own: equal for equal lists in equal order."""
        parts = "".join(part.fingerprint() for part in self.parts)
        return hashlib.sha256(parts.encode()).hexdigest()


class OneImage(ImageSource):
    """One image of another source."""

    def __init__(self, whole: ImageSource, index: int):
        self.whole, self.index = whole, index
        self.root, self.where, self.left_out = whole.root, whole.path(index), {}

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return self.whole.name(self.index)

    def path(self, index: int) -> str:
        return self.whole.path(self.index)

    def open(self, index: int) -> str | BinaryIO:
        return self.whole.open(self.index)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.whole.fingerprint()} {self.index}".encode()).hexdigest()


def part_of(ends: np.ndarray, index: int) -> tuple[int, int]:
    """Which part of a sequence an index is in, and its number there; ``ends``: of the parts."""
    if not 0 <= index < ends[-1]:
        raise IndexError(f"image {index} of {ends[-1]}")
    part = int(np.searchsorted(ends, index, side="right"))
    return part, index - (int(ends[part - 1]) if part else 0)


def pack(names: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Names as one byte buffer (uint8) and the end of each in it (int64)."""
    ends, buffer = array("q"), bytearray()
    for name in names:
        buffer += os.fsencode(name)
        ends.append(len(buffer))
    return np.array(ends, dtype=np.int64), np.frombuffer(bytes(buffer), dtype=np.uint8)


def build_source(cfg: CfgNode) -> ImageSource:
    """The images that ``cfg.DATA`` names. Raises InputError when there are none."""
    data = cfg.DATA
    sources = {"folder": _folders, "list": _lists, "coco": _coco, "shards": _shards}
    if data.SOURCE not in sources:
        raise unknown("source", data.SOURCE, sources, where="DATA.SOURCE")
    if not data.PATH:
        raise InputError("DATA.PATH is empty; give the folder (or list file) of the images")
    if data.get("CLASSES") and data.SOURCE != "folder":
        raise InputError(
            f"DATA.CLASSES is '{data.CLASSES}', but DATA.SOURCE is {data.SOURCE}: class folders "
            "are those of DATA.SOURCE folder"
        )
    if data.get("FRAME_RATE") and data.SOURCE not in WITH_VIDEOS:
        raise InputError(
            f"DATA.FRAME_RATE is {data.FRAME_RATE:g}; allowed with DATA.SOURCE {data.SOURCE}: 0 "
            f"(videos are those of DATA.SOURCE {' or '.join(WITH_VIDEOS)})"
        )
    paths = data_paths(data)
    with required("DATA.PATH"):
        parts = sources[data.SOURCE](paths, data)
    source = JoinedSource(parts) if len(parts) > 1 else parts[0]
    if data.get("FRAME_RATE"):
        from .videos import with_frames  # which builds on this file

        source = with_frames(source, data)
    if data.get("CHANNEL_FILES"):
        from .channel_files import with_channel_files  # which builds on this file

        words = parse_channel_files(data.CHANNEL_FILES, "DATA.CHANNEL_FILES")
        source = with_channel_files(source, words)
    if not data.get("TILE"):
        return source
    from .tiles import tiled  # which builds on this file

    with required("DATA.PATH"):  # the size of every image is read
        return tiled(source, data)


def _folders(paths: list[Location], data: CfgNode) -> list[ImageSource]:
    """Every image below each folder, in the order of their names; of ``DATA.CLASSES`` only. A video
    may stand for itself."""
    wanted = Wanted(data.get("CHANNELS", COLOURS), bool(data.get("FRAME_RATE")))
    for path in paths:
        _require_folder(path, wanted)
    _require_apart(paths)
    classes = class_folders(data.CLASSES) if data.get("CLASSES") else None
    trees = [path for path in paths if path.is_dir()]
    found = {path: _walk(path, classes, wanted) for path in trees}
    if classes:
        _require_classes(classes, [names for names, _ in found.values()], trees, data.CLASSES)
    kinds = f"a tree of {', '.join(SUFFIXES[:4])}, … files"
    return [
        _source(path, found[path][0], f"DATA.PATH {path} ({kinds})", data, found[path][1])
        if path in found
        else _source(path.parent, [path.name], f"DATA.PATH {path}", data)
        for path in paths
    ]


@dataclass(frozen=True)
class Wanted:
    """Which files are images: by their names, those of so many ``channels``; and ``videos``."""

    channels: int
    videos: bool

    def __call__(self, name: str) -> bool:
        if is_image(name) or (self.videos and is_video(name)):
            return True
        return self.channels != COLOURS and is_array(name)


def _require_folder(path: Location, wanted: Wanted) -> None:
    """InputError unless it is a folder, or a video whose frames are wanted."""
    if path.is_dir():
        return
    if not is_video(path.name):
        raise InputError(f"DATA.PATH: {path} is a file; for a list file give DATA.SOURCE list")
    if not wanted.videos:
        raise InputError(
            f"DATA.PATH: {path} is a video; DATA.FRAME_RATE says how many frames of each second "
            "are images, as in DATA.FRAME_RATE 1"
        )


def _source(
    root: Location,
    names: Collection[str],
    where: str,
    data: CfgNode,
    left_out: Mapping[str, int] | None = None,
) -> ImageSource:
    """The images of these names, on the disk or beyond it."""
    if isinstance(root, Path) and not any(map(is_remote, names)):
        return ImageSource(root, names, where, left_out)
    from .remote import RemoteSource  # which builds on this file

    return RemoteSource(root, names, where, left_out, cache=data.get("CACHE", ""))


def _require_apart(paths: list[Location]) -> None:
    """No folder is another one, or in it: its images would count twice."""
    real = [Path(os.path.realpath(path)) for path in paths]
    for i, path in enumerate(real):
        for j, other in enumerate(real):
            if i != j and (path == other or other in path.parents):
                relation = "is named twice" if path == other else f"lies in {paths[j]}"
                raise InputError(f"DATA.PATH: {paths[i]} {relation}: its images would count twice")


def _walk(
    path: Location, classes: list[str] | None, wanted: Wanted
) -> tuple[Collection[str], Counter]:
    """The sorted names of the images below ``path``, or below its folders of ``classes``; and the
    numbers of other files that are not hidden, by suffix."""
    if isinstance(path, Address):
        return _beyond(path, classes, wanted)
    names: list[str] = []
    left_out: Counter[str] = Counter()
    with Bar("images found", None, late=True) as bar:
        for folder, folders, files in walk(path, _refuse):
            below = os.path.relpath(folder, path)
            if classes is not None and below == os.curdir:
                named = set(classes)
                folders[:] = [name for name in folders if name in named]
                files = []
            before, start = len(names), "" if below == os.curdir else f"{below}{os.sep}"
            for name in files:
                if wanted(name):
                    names.append(start + name)
                elif not name.startswith("."):
                    left_out[os.path.splitext(name)[1].lower()] += 1
            bar.advance(len(names) - before)
    names.sort()
    return names, left_out


def _beyond(
    address: Address, classes: list[str] | None, wanted: Wanted
) -> tuple[dict[str, int], Counter]:
    """The same beyond a disk; with each name the number of its content."""
    files = address.files()
    if classes is not None:
        named = set(classes)
        files = {name: files[name] for name in files if name.rpartition("/")[0]}
        files = {name: files[name] for name in files if name.split("/", 1)[0] in named}
    names = sorted(name for name in files if wanted(os.path.basename(name)))
    others = files.keys() - names
    left_out = Counter(os.path.splitext(name)[1].lower() for name in others)
    return {name: files[name] for name in names}, left_out


def _refuse(error: OSError) -> None:
    raise InputError(f"DATA.PATH: cannot list {error.filename}: {error.strerror}")


def class_folders(classes: str) -> list[str]:
    """The folder names of a class list: a shipped one, or a text file of one a line."""
    file = CLASS_LISTS.get(classes) or Path(classes).expanduser()
    try:
        text = read_text(file, errors=LIST)
    except OSError as error:
        hint = nearest(classes, CLASS_LISTS)
        meant = f" Did you mean '{hint}'?" if hint else ""
        raise InputError(
            f"DATA.CLASSES: '{classes}' is no text file that can be read ({error.strerror}; looked "
            f"from {Path.cwd()}), and no shipped list.{meant} Shipped: {', '.join(CLASS_LISTS)}"
        ) from None
    lines = [line.strip() for line in text.split("\n")]
    named = [from_line(line).rstrip("/") for line in lines if line and not line.startswith("#")]
    names = list(dict.fromkeys(name for name in named if name))
    if not names:
        raise InputError(f"DATA.CLASSES: {file} names no folder; it takes one a line")
    return names


def _require_classes(
    classes: list[str], names: Sequence[Iterable[str]], paths: list[Location], option: str
) -> None:
    """InputError for classes without images, which says where else their folders are."""
    found = {name.split(os.sep, 1)[0] for each in names for name in each}
    missing = [name for name in classes if name not in found]
    if not missing:
        return
    nearby = [
        child
        for path in paths
        if isinstance(path, Path) and len(missing) == len(classes)
        for child in sorted(path.iterdir())
        if any((child / name).is_dir() for name in classes)
    ]
    more = ", …" if len(missing) > NAMED else ""
    raise InputError(
        f"DATA.CLASSES {option}: {len(missing)} of its {len(classes)} classes have no folder with "
        f"images in {' or '.join(map(str, paths))}: {', '.join(missing[:NAMED])}{more}"
        + (f". They are in {nearby[0]}: give that as DATA.PATH" if nearby else "")
    )


def _lists(paths: list[Location], data: CfgNode) -> list[ImageSource]:
    return [_list(path, data) for path in paths]


def _list(path: Location, data: CfgNode) -> ImageSource:
    """A text file of one image a line, relative to the file's own folder; '#' starts a comment.

    What follows the name after white space (a label) is ignored, unless the whole line is a file
    (beyond a disk, where no line is looked up: unless it ends as an image's name).
    A name between double quotes has escapes, as the list of unreadable images writes a line feed.
    """
    if path.is_dir():
        raise InputError(f"DATA.PATH: {path} is a folder; DATA.SOURCE list takes a text file")
    try:
        text = decode(path.read_bytes(), errors=LIST)
    except OSError as error:
        raise InputError(f"DATA.PATH: cannot read {path}: {error.strerror}") from None
    lines = [line.strip() for line in text.split("\n")]  # others than \n may be part of a name
    listed = [line for line in lines if line and not line.startswith("#")]
    names = [_listed(line, path.parent) for line in track(listed, "images of the list", late=True)]
    for name in filter(is_remote, names):
        Address.parse(name, f"DATA.PATH {path}")
    if names and not _exists(_join(path.parent, names[0])):
        first = one_line(names[0][:100])
        raise InputError(
            f"DATA.PATH: the first image of {path} is '{first}', and there is no such file; names "
            f"are relative to the list's folder {path.parent}, or absolute"
        )
    return _source(path.parent, names, f"DATA.PATH {path} (a list file)", data)


def _join(folder: Location, name: str) -> Location:
    """An image of a list: its line may be an address, wherever the list lies."""
    return Address(name) if is_remote(name) else folder / name


def _listed(line: str, folder: Location) -> str:
    """The name in a line of a list file."""
    remote = isinstance(folder, Address) or is_remote(line)
    if "\t" in line and (remote or not _exists(folder / line)):
        line = line.split("\t")[0]  # what follows is a label, or why the image cannot be read
    words = len(line.split())
    if words == 1 and not line.startswith('"'):
        return line
    if is_image(line) if remote else _exists(folder / line):
        return line
    if (name := from_line(line)) != line or words == 1:
        return name
    return line.rsplit(None, 1)[0]


def _exists(path: Location) -> bool:
    try:
        return path.exists()
    except OSError:  # a 'name' too long for a file: the list is something else
        return False


def _coco(paths: list[Location], data: CfgNode) -> list[ImageSource]:
    """The images that COCO JSONs name, each in its folder of ``DATA.PATH``."""
    if not data.ANNOTATIONS:
        raise InputError("DATA.ANNOTATIONS is empty; DATA.SOURCE coco takes the JSON of the images")
    files = split_paths(data.ANNOTATIONS, "DATA.ANNOTATIONS")
    for file in files:
        if not file.is_file():
            raise InputError(f"DATA.ANNOTATIONS: {file} does not exist (looked from {Path.cwd()})")
    if len(files) != len(paths):
        raise InputError(
            f"DATA.ANNOTATIONS names {len(files)} JSON files, but DATA.PATH {len(paths)} folders; "
            f"it takes one for each, in the same order, with '{os.pathsep}' between them"
        )
    return [_images_of(file, path, data) for file, path in zip(files, paths, strict=True)]


def _images_of(file: Location, path: Location, data: CfgNode) -> ImageSource:
    """The images that a COCO JSON names, in the folder ``path``."""
    try:
        names = sorted(
            image["file_name"] for image in parse_json(decode(file.read_bytes()))["images"]
        )
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a file_name is no text")
        "".join(names).encode("utf-8", LIST)  # half of a surrogate pair names no file
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"DATA.ANNOTATIONS: {file} is not a COCO JSON ({error!r})") from None
    if names and not (path / names[0]).exists():
        raise InputError(f"DATA.PATH: there is no {path / names[0]}, which {file} names")
    return _source(path, names, f"DATA.ANNOTATIONS {file}", data)


def _shards(paths: list[Location], data: CfgNode) -> list[ImageSource]:
    from .shards import ShardSource  # which builds on this file

    return [ShardSource(path, data.get("CACHE", "")) for path in paths]
