"""A file read with torch and without: the same, or the same refusal."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch

from densessl.core.errors import DenseSSLError
from densessl.d2_transfer.convert import read_checkpoint as with_torch
from densessl.weight_files.unpickle import Held
from densessl.weight_files.without_torch import LIBRARY, NeedsTorch, Tensor


def read_checkpoint(path) -> Any:
    """What torch's reading gives. Without torch it is the same, or torch is asked for."""
    try:
        held = with_torch(path)
    except DenseSSLError as error:
        with pytest.raises((type(error), NeedsTorch)) as without:
            with_torch(path, LIBRARY)
        assert without.type is NeedsTorch or str(without.value) == str(error)
        raise
    with suppress(NeedsTorch):
        assert [*parts(with_torch(path, LIBRARY))] == [*parts(held)]
    return held


def parts(held: Any, seen: tuple[int, ...] = ()) -> Iterator[Any]:
    """What a file holds, as plain values in its order."""
    if id(held) in seen:
        return
    inside = (*seen, id(held))
    if isinstance(held, torch.Tensor | Tensor):
        yield "tensor", str(held.dtype), tuple(held.shape), held.nbytes, repr(held.tolist())
    elif isinstance(held, dict):
        yield type(held).__name__, getattr(held, "pickled", ""), len(held)
        for key, value in held.items():
            yield from (*parts(key, inside), *parts(value, inside))
        if isinstance(held, Held):
            yield from parts([held.arguments, held.values_in_order], inside)
    elif isinstance(held, list | tuple):
        yield type(held).__name__, len(held)
        for value in held:
            yield from parts(value, inside)
    else:  # a class that stands for another is made once
        yield str(held)
