"""Files of ``torch.save``, read without running anything: the zip format and that before 1.6.

Both hold one pickle, which names tensors by their storage, offset, shape and stride, and the bytes
of the storages. Every tensor comes out on the CPU. A zip's checksums are verified, which
``torch.load`` does not do. ``library``: whose tensors they become, torch's or those of
``without_torch.LIBRARY``.
"""

import re
import struct
import sys
import zipfile
from io import BytesIO
from typing import Any, BinaryIO

from densessl.core.archive import SMALL, check_zip
from densessl.core.errors import InputError
from densessl.core.units import byte_size

from .unpickle import Unpickler
from .without_torch import of_bytes

ZIP = b"PK\x03\x04"
MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a number that protocols 2 to 5 pickle, before 1.6
PROTOCOL = 1001  # of the format before 1.6

_STORAGES = {  # name of a storage's class: the type of its values
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


def read_zip(stream: BinaryIO, library: Any) -> Any:
    """What ``torch.save`` wrote; InputError for pickled code, a script, another zip."""
    with zipfile.ZipFile(stream) as archive:
        check_zip(archive, stream.seek(0, 2))
        names = archive.namelist()
        pickles = [name for name in names if re.fullmatch("([^/]+/)?data.pkl", name)]
        if any(name.endswith("constants.pkl") for name in names):
            raise InputError(
                "it is a TorchScript archive, a program; save its state_dict() instead"
            )
        if len(pickles) != 1:
            raise InputError("it is a zip archive of other things than torch.save writes")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names:
            _check_byte_order(archive.read(f"{folder}byteorder").decode("latin1"))
        storages: dict[str, Any] = {}

        def storage(saved: tuple) -> Any:
            dtype, key = saved[1], str(saved[2])
            if key not in storages:
                storages[key] = of_bytes(library, archive.read(f"{folder}data/{key}"), dtype)
            return storages[key]

        names_of_tensors = tensor_names(library)
        return Unpickler(BytesIO(archive.read(pickles[0])), names_of_tensors, storage).load()


def read_legacy(stream: BinaryIO, library: Any) -> Any:
    """What ``torch.save`` of before 1.6 wrote; InputError for pickled code and damage."""
    size = stream.seek(0, 2)
    stream.seek(0)
    _, protocol, system = (Unpickler(stream).load() for _ in range(3))
    if protocol != PROTOCOL:
        raise InputError(f"is in an unknown format of torch.save ({protocol})")
    _check_byte_order("little" if system["little_endian"] else "big")
    storages: dict[str, Any] = {}

    def storage(saved: tuple) -> Any:
        dtype, key, _, length = saved[1:5]
        if str(key) not in storages:
            if length * dtype.itemsize > size:
                raise InputError("is damaged or truncated: a tensor is larger than the file")
            storages[str(key)] = library.empty(length, dtype=dtype)
            if sum(held.nbytes for held in storages.values()) > size:
                raise InputError("is damaged or truncated: its tensors are larger than the file")
        whole, view = storages[str(key)], saved[5] if len(saved) > 5 else None
        return whole if view is None else whole[view[1] : view[1] + view[2]]

    held = Unpickler(stream, tensor_names(library), storage).load()
    order = [str(key) for key in Unpickler(stream).load()]  # of the storages that follow
    if set(order) != set(storages):
        raise InputError("is damaged or truncated: its tensors are incomplete")
    for key in order:
        _fill(stream, storages[key], library.uint8)
    return held


def _fill(stream: Any, storage: Any, uint8: Any) -> None:
    (length,) = struct.unpack("=q", stream.read(8))
    place = memoryview(storage.view(uint8).numpy()) if len(storage) else b""
    if length != len(storage) or (len(place) and stream.readinto(place) != len(place)):
        raise InputError("is damaged or truncated: its tensors are incomplete")


def _check_byte_order(order: str) -> None:
    if order != sys.byteorder:
        raise InputError(f"was written on a {order}-endian machine, which is not supported")


def tensor_names(library: Any) -> dict[tuple[str, str], Any]:
    """What a pickle of ``torch.save`` may name, and the functions of ours that stand for it.

    They are made anew for every file, so that no file can change them for the next.
    """

    def tensor(storage, offset, shape, stride, *_):
        view = storage.as_strided(tuple(shape), tuple(stride), offset)  # checks the bounds
        if view.nbytes > max(storage.nbytes, SMALL):  # one value for many, by strides of 0
            raise InputError(
                f"it holds a tensor of {byte_size(view.nbytes)} over "
                f"{byte_size(storage.nbytes)} of values"
            )
        return view

    def typed_tensor(storage, offset, shape, stride, gradient, hooks, dtype, *_):
        return tensor(storage.view(dtype), offset, shape, stride)

    def parameter(data, *_):
        return data

    def with_attributes(rebuild, kind, arguments, state):
        if rebuild not in (tensor, typed_tensor, parameter):
            raise InputError("it holds a tensor of an unknown kind")
        return rebuild(*arguments)

    def device(*where):
        return ":".join(map(str, where))

    names = {
        ("torch._utils", "_rebuild_tensor"): tensor,
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_tensor_v3"): typed_tensor,
        ("torch._utils", "_rebuild_parameter"): parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): with_attributes,
        ("torch", "Tensor"): "torch.Tensor",  # named, never called
        ("torch.nn.parameter", "Parameter"): "torch.nn.Parameter",
        ("torch", "Size"): lambda shape=(): tuple(shape),
        ("torch", "device"): device,
        ("torch.storage", "_load_from_bytes"): lambda data: read_legacy(BytesIO(data), library),
    }
    for storage, dtype in _STORAGES.items():
        for module in ("torch", "torch.cuda", "torch.storage"):
            names[module, storage] = getattr(library, dtype)
    for name, value in vars(library).items():
        if isinstance(value, library.dtype):
            names["torch", name] = value
    return names
