"""The weights files that conversions write: Detectron2's, and plain state dicts."""

import collections
import hashlib
import json
import os
import pickle
import shlex
from pathlib import Path
from typing import Any, BinaryIO

from densessl.core.errors import InputError
from densessl.weight_files.reading import read_checkpoint

AUTHOR = "DenseSSL"


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
    """A Detectron2 weights file: ``model`` (name -> array), ``__author__``, and our ``densessl``.

    Raises InputError for any other layout: those go through ``densessl convert`` first.
    """
    held = read_checkpoint(path)
    if not isinstance(held, dict) or "model" not in held or "__author__" not in held:
        command = ["densessl", "convert", str(path), "-o", Path(path).with_suffix(".pkl").name]
        raise InputError(
            f"{path} is no Detectron2 weights file (it lacks 'model' and '__author__'); first "
            f"run: {shlex.join(command)}"
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
