"""Reading and writing weights: nothing that a file holds is ever run.

A ``.pth`` goes through ``torch.load(weights_only=True)``, a ``.pkl`` through an unpickler that
knows arrays and plain containers and nothing else. Files are told by their first bytes.
"""

import collections
import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

from console import files
from console.errors import InputError

AUTHOR = "DenseSSL"
ZIP = b"PK\x03\x04"
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6

_NUMPY = {"_reconstruct", "scalar", "_frombuffer", "ndarray", "dtype"}
_NUMPY_MODULES = {
    f"numpy{core}{module}"
    for core in ("", ".core", "._core")
    for module in ("", ".multiarray", ".numeric")
}  # numpy 1 says core, numpy 2 says _core


class ArraysOnly(pickle.Unpickler):
    """An unpickler of numpy arrays in plain containers; any other object is refused unmade."""

    def find_class(self, module: str, name: str) -> Any:
        if (module in _NUMPY_MODULES and name in _NUMPY) or (
            module == "numpy.dtypes" and name.endswith("DType")
        ):
            return super().find_class(module, name)
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("_codecs", "encode"):  # how old pickles spell bytes
            return super().find_class(module, name)
        raise InputError(f"it holds pickled code ({module}.{name}), which will not be unpickled")


def read_checkpoint(path: str | os.PathLike) -> Any:
    """What a checkpoint file holds, of whatever layout, on the CPU.

    Raises InputError for a file that is missing, damaged, no checkpoint, or that holds code.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give a checkpoint file")
    _check_sidecar(path)
    with open(path, "rb") as stream:
        start = stream.read(len(LEGACY_TORCH))
        stream.seek(0)
        if start.startswith(ZIP) or start == LEGACY_TORCH:
            return _read_torch(path, stream)
        return _read_pickle(path, stream)


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
    """A Detectron2 weights file: ``model`` (name -> array), ``__author__``, and our ``densessl``.

    Raises InputError for any other layout: those go through ``densessl convert`` first.
    """
    held = read_checkpoint(path)
    if not isinstance(held, dict) or "model" not in held or "__author__" not in held:
        raise InputError(
            f"{path} is no Detectron2 weights file (it lacks 'model' and '__author__'); first "
            f"run: densessl convert {path} -o {Path(path).with_suffix('.pkl').name}"
        )
    model, facts = held["model"], held.get("densessl")
    arrays = isinstance(model, dict) and all(hasattr(a, "tobytes") for a in model.values())
    if not arrays or not isinstance(facts, dict | None):
        raise InputError(f"{path}: 'model' is not a dict of arrays, or 'densessl' not one of facts")
    if facts is not None and facts.get("tensors_sha256") != digest(model):
        raise InputError(f"{path} is damaged: its tensors are not those that were written")
    return held


def digest(model: dict[str, Any]) -> str:
    """The SHA-256 over names, types, shapes and values of arrays, in their order."""
    sha = hashlib.sha256()
    for name, array in model.items():
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def write_detectron2(stream: BinaryIO, model: dict[str, Any], facts: dict[str, Any]) -> None:
    """Pickle arrays and facts as Detectron2 reads them; the same input gives the same bytes."""
    facts = facts | {"tensors_sha256": digest(model)}
    held = {
        "model": model,
        "__author__": AUTHOR,
        "matching_heuristics": True,  # names are matched by their longest dotted tail
        "densessl": json.loads(json.dumps(facts, sort_keys=True)),  # plain values only
    }
    pickle.dump(held, stream, protocol=4)


def write_state_dict(stream: BinaryIO, state: dict[str, Any], facts: dict[str, Any]) -> None:
    """Save a state dict that torchvision or timm loads as it is.

    The facts are its attribute ``densessl``, because every key of it is taken for a tensor.
    """
    import torch

    held = collections.OrderedDict(state)
    held.densessl = json.loads(json.dumps(facts, sort_keys=True))
    torch.save(held, stream)


def _read_torch(path: Path, stream: BinaryIO) -> Any:
    import torch

    try:
        return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"(?:Unsupported global: GLOBAL|global) ([\w.]+)", str(error)):
            raise InputError(
                f"{path}: it holds pickled code ({found[1]}), which will not be unpickled"
            ) from None
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is damaged or truncated: {reason}") from None


def _read_pickle(path: Path, stream: BinaryIO) -> Any:
    try:
        return ArraysOnly(stream, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # whatever bytes there are, they end here
        size = path.stat().st_size
        raise InputError(
            f"{path} ({size} bytes) is no checkpoint, or is damaged or truncated: "
            f"{type(error).__name__}: {error}"
        ) from None


def _check_sidecar(path: Path) -> None:
    """A checkpoint of ours has its SHA-256 beside it; other bytes than those are refused."""
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.is_file():
        return
    written = beside.read_text(errors="replace").split()
    if written and files.sha256(path) != written[0]:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in {beside.name}")
