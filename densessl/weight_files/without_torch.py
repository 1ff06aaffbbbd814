"""What of torch the reading of a file takes, made of numpy: torch takes seconds to import.

``LIBRARY`` has functions and types of torch's names which do what torch's do, so that one reader
serves both: it is given torch or ``LIBRARY``. What torch would do otherwise, or with more (a
stride below zero, a type that numpy lacks, a comparison), is refused here by :class:`NeedsTorch`;
torch then says what becomes of the file. bfloat16, which numpy lacks, is kept as the upper halves
of float32's bits.
"""

import math
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

_NUMPYS = {  # torch's name of a type: numpy's of as many bytes
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "complex64": "c8",
    "complex128": "c16",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "?",
}
_SECOND_NAMES = {
    "bit": "uint1",
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "chalf": "complex32",
    "long": "int64",
    "int": "int32",
    "short": "int16",
}
# fmt: off
_UNKNOWN_TO_NUMPY = (  # of which a file may name one, as long as no tensor has it
    "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "complex32", "float4_e2m1fn_x2",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "int1", "int2", "int3", "int4", "int5", "int6", "int7",
    "uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7",
    "qint8", "qint32", "quint8", "quint2x4", "quint4x2",
)
# fmt: on


class NeedsTorch(Exception):
    """A tensor, or something done with it, that numpy cannot stand in for."""


class dtype:  # noqa: N801  # torch's name
    """A type of values, as :data:`LIBRARY` has them."""

    def __init__(self, name: str):
        self.name = name

    @property
    def numpy(self) -> str:
        if self.name not in _NUMPYS:
            raise NeedsTorch(f"numpy has no {self.name}")
        return _NUMPYS[self.name]

    @property
    def itemsize(self) -> int:
        return int(self.numpy[1:] or 1)

    def __repr__(self) -> str:
        return f"torch.{self.name}"


_TYPES = {name: dtype(name) for name in (*_NUMPYS, *_UNKNOWN_TO_NUMPY)}
_TYPES |= {name: _TYPES[first] for name, first in _SECOND_NAMES.items()}


class Tensor:
    """Values of a file, or a view of them; no arithmetic. ``whole``: a storage, no view of one."""

    __slots__ = ("_values", "_whole", "dtype")

    def __init__(self, values: Any, dtype: dtype, whole: bool = False):
        self._values, self.dtype, self._whole = values, dtype, whole

    def _needs_torch(self, *_: Any) -> Any:
        raise NeedsTorch("what Python does with any object, torch does otherwise")

    __eq__ = __bool__ = __repr__ = __setstate__ = _needs_torch
    __hash__ = object.__hash__

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    @property
    def ndim(self) -> int:
        return self._values.ndim

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def __len__(self) -> int:
        return len(self._values)

    def numel(self) -> int:
        return self._values.size

    def is_floating_point(self) -> bool:
        return "float" in self.dtype.name

    def as_strided(self, shape: Sequence[int], stride: Sequence[int], offset: int) -> "Tensor":
        from numpy.lib.stride_tricks import as_strided

        if not self._whole or len(shape) != len(stride):
            raise NeedsTorch("a view of a view, or one without strides for its shape")
        _check_counts(*shape, *stride, offset)
        values = self._values
        if math.prod(shape):
            last = sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
            if offset + last >= len(values):
                raise NeedsTorch("a view of more than there is")
            values = values[offset:]
        steps = [step * values.itemsize for step in stride]
        return Tensor(as_strided(values, shape, steps), self.dtype)

    def view(self, what: Any) -> "Tensor":
        """Of a storage: as another type, or in another shape."""
        if not self._whole:
            raise NeedsTorch("a view of a view")
        if isinstance(what, dtype):
            return Tensor(self._values.view(what.numpy), what, whole=True)
        _check_counts(*what)
        return Tensor(self._values.reshape(what), self.dtype)

    def reshape(self, *shape: int) -> "Tensor":
        return Tensor(self._values.reshape(*shape), self.dtype)

    def to(self, type_: dtype) -> "Tensor":
        """As ``float32`` or ``int64``."""
        import numpy

        with numpy.errstate(all="ignore"):  # what is too large becomes infinite
            return Tensor(self._numbers().astype(type_.numpy, copy=False), type_)

    def contiguous(self) -> "Tensor":
        import numpy

        return Tensor(numpy.asarray(self._values, order="C"), self.dtype)

    def detach(self) -> "Tensor":
        return self

    cpu = detach

    def numpy(self) -> Any:
        return self._values

    def tolist(self) -> Any:
        return self._numbers().tolist()

    def _numbers(self) -> Any:
        """The values as numbers of numpy's."""
        if self.dtype.name != "bfloat16":
            return self._values
        return (self._values.astype("u4") << 16).view("f4")


def _check_counts(*numbers: Any) -> None:
    if any(type(number) is not int or number < 0 for number in numbers):
        raise NeedsTorch("a shape, stride or offset that is no count")


def frombuffer(data: Any, dtype: dtype) -> Tensor:
    import numpy

    return Tensor(numpy.frombuffer(data, _checked(dtype).numpy), dtype, whole=True)


def empty(length: int, dtype: dtype) -> Tensor:
    import numpy

    _check_counts(length)
    return Tensor(numpy.empty(length, _checked(dtype).numpy), dtype, whole=True)


def full(shape: Sequence[int], value: float, name: str) -> Tensor:
    """A tensor of one value, of the type of that ``name``."""
    import numpy

    return Tensor(numpy.full(shape, value, _NUMPYS[name]), _TYPES[name])


def as_tensor(array: Any) -> Tensor:
    """Of an array or a scalar of numpy's."""
    import numpy

    values = numpy.asarray(array)
    names = {numpy.dtype(text): name for name, text in _NUMPYS.items() if name != "bfloat16"}
    if values.dtype not in names:
        raise TypeError(f"torch has no type for an array of {values.dtype}")
    return Tensor(values, _TYPES[names[values.dtype]])


def equal(one: Tensor, other: Tensor) -> bool:
    import numpy

    if one.dtype is not other.dtype:
        raise NeedsTorch("two types")
    first, second = one._numbers(), other._numbers()
    same = numpy.array_equal(first, second)
    if not same and numpy.isnan(first).any():  # torch looks whether they are the same memory
        raise NeedsTorch("numbers that are equal to none")
    return same


def aminmax(tensor: Tensor) -> tuple[Any, Any]:
    values = tensor.numpy()
    return values.min(), values.max()


def _checked(type_: Any) -> dtype:
    if not isinstance(type_, dtype):
        raise NeedsTorch(f"{type_!r:.40} is no type")
    return type_


LIBRARY = SimpleNamespace(
    dtype=dtype,
    frombuffer=frombuffer,
    empty=empty,
    equal=equal,
    aminmax=aminmax,
    isfinite=math.isfinite,
    **_TYPES,
)


def of_bytes(library: Any, data: Any, dtype: Any) -> Any:
    """A tensor of the bytes of a storage, in a copy of them if it is torch's, which may write."""
    if not len(data):
        return library.empty(0, dtype=dtype)
    return library.frombuffer(data if library is LIBRARY else bytearray(data), dtype=dtype)


def library_of(value: Any) -> Any:
    """torch of its tensors, ``LIBRARY`` of those above; None for what is no tensor."""
    if isinstance(value, Tensor):
        return LIBRARY
    torch = sys.modules.get("torch")  # before it is imported, there are none of its tensors
    return torch if torch is not None and isinstance(value, torch.Tensor) else None


def in_torch(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same tensors, all of them torch's."""
    import torch

    return {
        name: torch.as_tensor(tensor.numpy()) if isinstance(tensor, Tensor) else tensor
        for name, tensor in tensors.items()
    }
