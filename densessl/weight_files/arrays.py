"""Pickled numpy arrays, made by functions of ours: numpy's own would trust the file.

With numpy's, a pickle can ask for an array of objects over bytes of its choice, which are then
followed as pointers. Here only numbers and texts are made, and only from as many bytes as they
need.
"""

import re
from typing import Any

from densessl.core.errors import InputError

_MODULES = [
    f"numpy{core}{module}"
    for core in ("", ".core", "._core")
    for module in ("", ".multiarray", ".numeric")
]  # numpy 1 says core, numpy 2 says _core
_TYPE = r"[<>=|]?(\?|b1|[iu][1248]|f[248]|c8|c16|[SU]\d+)"


class Type:
    """A pickled ``numpy.dtype``, of numbers or texts."""

    def __init__(self, text: Any, *_: Any):
        if not isinstance(text, str) or not re.fullmatch(_TYPE, text):
            raise InputError(f"it holds an array of the type {text!r:.40}, which is not read")
        self._text, self._order = text, "="

    def __setstate__(self, state: tuple) -> None:
        _, order, *parts = state[:5]
        if any(part is not None for part in parts) or order not in ("<", ">", "=", "|"):
            raise InputError("it holds an array of several fields, which is not read")
        self._order = order

    @property
    def numpy(self):
        import numpy

        dtype = numpy.dtype(self._text)
        return dtype if self._order == "|" else dtype.newbyteorder(self._order)


def names() -> dict[tuple[str, str], Any]:
    """What pickles of arrays ask for, and the functions of ours that stand for it."""
    import numpy

    class Array(numpy.ndarray):
        """What ``_reconstruct`` makes; its contents come with ``__setstate__``."""

        def __setstate__(self, state: tuple) -> None:
            _, shape, dtype, in_columns, data = state
            data = data.encode("latin1") if isinstance(data, str) else data  # Python 2
            shape = of_bytes(data, dtype, shape).shape  # as many bytes as it needs
            super().__setstate__((1, shape, dtype.numpy, in_columns, data))

    def of_bytes(data, dtype, shape, order="C", *_):
        array = numpy.frombuffer(data, dtype.numpy).reshape(shape, order=order)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def scalar(dtype, data):
        data = data.encode("latin1") if isinstance(data, str) else data
        return of_bytes(data, dtype, ())[()]

    def reconstruct(*_):
        return numpy.ndarray.__new__(Array, (0,))

    functions = {
        "_reconstruct": reconstruct,
        "_frombuffer": of_bytes,
        "scalar": scalar,
        "dtype": Type,
        "ndarray": "numpy.ndarray",  # named, never called
    }
    return {(module, name): made for module in _MODULES for name, made in functions.items()}
