"""Where images come from: a folder tree, a list file, or COCO's JSON. No labels are read."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode

from console.errors import InputError, unknown

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")


class ImageSource:
    """The images of a data set, by number.

    Names live in one byte buffer with offsets, so that loader processes share it: a list of a
    million strings would be copied into each of them as its reference counts change.
    """

    def __init__(self, root: Path, names: Iterable[str], where: str):
        self.root, self.where = Path(root), where
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._buffer = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        if not encoded:
            raise InputError(f"{where} has no images")

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

    def fingerprint(self) -> str:
        """A SHA-256 of the names in their order: equal for equal lists, wherever they lie."""
        digest = hashlib.sha256(self._ends.tobytes())
        digest.update(self._buffer.tobytes())
        return digest.hexdigest()


def build_source(cfg: CfgNode) -> ImageSource:
    """The images that ``cfg.DATA`` names. Raises InputError when there are none."""
    data = cfg.DATA
    sources = {"folder": _folder, "list": _list, "coco": _coco}
    if data.SOURCE not in sources:
        raise unknown("source", data.SOURCE, sources, where="DATA.SOURCE")
    if not data.PATH:
        raise InputError("DATA.PATH is empty; give the folder (or list file) of the images")
    path = Path(data.PATH).expanduser()
    if not path.exists():
        raise InputError(f"DATA.PATH: {path} does not exist (looked from {Path.cwd()})")
    return sources[data.SOURCE](path, data)


def _folder(path: Path, data: CfgNode) -> ImageSource:
    """Every image below a folder, in the order of their names."""
    if not path.is_dir():
        raise InputError(f"DATA.PATH: {path} is a file; for a list file give DATA.SOURCE list")
    names, seen = [], set()
    for folder, folders, files in os.walk(path, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(folder, path)
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                names.append(os.path.normpath(os.path.join(below, name)))
    where = f"DATA.PATH {path} (a tree of {', '.join(SUFFIXES[:4])}, … files)"
    return ImageSource(path, sorted(names), where)


def _refuse(error: OSError) -> None:
    raise InputError(f"DATA.PATH: cannot list {error.filename}: {error.strerror}")


def _list(path: Path, data: CfgNode) -> ImageSource:
    """A text file of one image a line, relative to the file's own folder; '#' starts a comment.

    What follows the name after white space (a label) is ignored, unless the whole line is a file.
    """
    if path.is_dir():
        raise InputError(f"DATA.PATH: {path} is a folder; DATA.SOURCE list takes a text file")
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"DATA.PATH: cannot read {path}: {error.strerror}") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    names = [
        line if len(line.split()) == 1 or _exists(path.parent / line) else line.rsplit(None, 1)[0]
        for line in lines
    ]
    if names and not _exists(path.parent / names[0]):
        raise InputError(
            f"DATA.PATH: the first image of {path} is '{names[0][:100]}', and there is no such "
            f"file; names are relative to the list's folder {path.parent}, or absolute"
        )
    return ImageSource(path.parent, names, f"DATA.PATH {path} (a list file)")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a 'name' too long for a file: the list is something else
        return False


def _coco(path: Path, data: CfgNode) -> ImageSource:
    """The images that a COCO JSON names, in ``DATA.PATH``."""
    if not data.ANNOTATIONS:
        raise InputError("DATA.ANNOTATIONS is empty; DATA.SOURCE coco takes the JSON of the images")
    file = Path(data.ANNOTATIONS).expanduser()
    if not file.is_file():
        raise InputError(f"DATA.ANNOTATIONS: {file} does not exist (looked from {Path.cwd()})")
    try:
        names = sorted(image["file_name"] for image in json.loads(file.read_bytes())["images"])
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a file_name is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"DATA.ANNOTATIONS: {file} is not a COCO JSON ({error!r})") from None
    if names and not (path / names[0]).exists():
        raise InputError(f"DATA.PATH: there is no {path / names[0]}, which {file} names")
    return ImageSource(path, names, f"DATA.ANNOTATIONS {file}")
