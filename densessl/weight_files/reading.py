"""From a file to what it holds: nothing that a file holds is ever run.

Files are told by their first bytes. Whatever a file is, it is read or refused with one message.
"""

import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from densessl.core import files
from densessl.core.errors import DenseSSLError, InputError

from . import safetensors, torchfile
from .unpickle import Unpickler
from .without_torch import LIBRARY, NeedsTorch

START = 512  # bytes that tell what a file is
KINDS = {  # the kinds of files that can be read, for people
    "zip": "torch.save",
    "legacy": "torch.save before 1.6",
    "safetensors": "safetensors",
    "pickle": "pickle",
}
# What says no more than that bytes are damaged, whosever tensors they are
OF_BYTES = (
    EOFError,
    UnicodeError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# First bytes, at an offset, of what people give instead of a checkpoint
_OTHERS = [
    (0, b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself: git lfs pull"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it"),
    (0, b"BZh", "a bzip2 archive; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (257, b"ustar", "a tar archive (torch.save has written none since 2017); unpack it"),
    (0, b"\x89HDF", "an HDF5 file (Keras)"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
]


def read_checkpoint(path: str | os.PathLike, library: Any = None) -> Any:
    """What a checkpoint file holds, of whatever layout, on the CPU.

    Objects of other programs are ``unpickle.Held``. ``library``: whose tensors, torch's by
    default, or those of ``without_torch.LIBRARY``. Raises InputError for a file that is missing,
    damaged, no checkpoint, a zip bomb, or that holds code; EnvironmentLacks for one that is larger
    than the free memory. ``LIBRARY`` also raises NeedsTorch, for what torch alone can judge.
    """
    path = Path(path)
    kind = kind_of(path)
    _check_sidecar(path)
    if library is None:
        import torch as library
    with open(path, "rb") as stream:
        try:
            if kind == "zip":
                return torchfile.read_zip(stream, library)
            if kind == "legacy":
                return torchfile.read_legacy(stream, library)
            if kind == "safetensors":
                return safetensors.read(stream, library)
            return Unpickler(stream, torchfile.tensor_names(library)).load()
        except DenseSSLError as error:
            raise type(error)(f"{path}: {error}") from None
        except Exception as error:  # whatever bytes there are, they end here
            if library is LIBRARY and not isinstance(error, OF_BYTES):
                raise NeedsTorch(str(error)) from error
            raise InputError(_damaged(path, kind, error)) from None


def kind_of(path: Path) -> str:
    """The kind of file, one of KINDS; InputError for what is no checkpoint at all."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give a checkpoint file")
    try:
        with open(path, "rb") as stream:
            start = stream.read(START)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not start:
        raise InputError(f"{path} is damaged: it is empty (0 bytes)")
    if path.suffix == ".sha256":
        raise InputError(f"{path} is no checkpoint but the checksum of {path.stem}; give that file")
    for offset, first, what in _OTHERS:
        if start[offset:].startswith(first):
            raise InputError(f"{path} is no checkpoint but {what}")
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(
            f"{path} is no checkpoint but a web page (HTML), as a failed download leaves it; "
            "fetch the file again"
        )
    if start.startswith(torchfile.ZIP):
        return "zip"
    if start.startswith(b"\x80") and torchfile.MAGIC in start[:24]:
        return "legacy"
    return "safetensors" if safetensors.is_one(start, path.stat().st_size) else "pickle"


def _damaged(path: Path, kind: str, error: Exception) -> str:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"{reason} is missing"
    what = "is no checkpoint, or is" if kind == "pickle" else "is"
    return f"{path} ({path.stat().st_size} bytes) {what} damaged or truncated: {reason}"


def _check_sidecar(path: Path) -> None:
    """A checkpoint of ours has its SHA-256 beside it; other bytes than those are refused."""
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.is_file():
        return
    written = beside.read_text(errors="replace").split()
    if written and files.sha256(path) != written[0]:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in {beside.name}")
