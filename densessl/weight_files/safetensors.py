"""The safetensors format: a JSON header, then the bytes of the tensors; nothing to run.

Written here byte for byte the same for the same tensors, which the library of that name does not
promise. Format: 8 bytes, the header's length; the header, ``{name: {dtype, shape, data_offsets}}``
and ``__metadata__``, texts by name; the bytes, row-major.
"""

import collections
import json
import math
import struct
from typing import Any, BinaryIO

from densessl.core.archive import check_size
from densessl.core.errors import InputError

from .without_torch import of_bytes

FACTS = "densessl"  # the metadata entry that holds our facts, as JSON
ALIGNMENT = 8
_TYPES = {  # the format's names: torch's
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def is_one(start: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes with these first bytes is a safetensors file."""
    return start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= size - 8


def read(stream: BinaryIO, library: Any) -> Any:
    """The tensors by their names; an attribute ``densessl`` holds our facts, if it is our file.

    ``library``: whose tensors, torch's or those of ``without_torch.LIBRARY``. Raises InputError for
    another type and for a header that does not agree with the bytes.
    """
    check_size(size := stream.seek(0, 2), size)
    stream.seek(0)
    data = stream.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", None) or {}
    tensors: Any = collections.OrderedDict()  # for it takes attributes
    body = memoryview(data)[8 + length :]
    held = 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] not in _TYPES:
            raise InputError(f"{name} has the type {entry['dtype']}, which is no weight's")
        dtype, shape = getattr(library, _TYPES[entry["dtype"]]), entry["shape"]
        if not 0 <= begin <= end <= len(body) or end - begin != math.prod(shape) * dtype.itemsize:
            raise InputError(f"is damaged or truncated: {name} does not lie within the file")
        held += end - begin
        if held > len(body):
            raise InputError("its tensors lie over each other: they are larger than the file")
        tensors[name] = of_bytes(library, body[begin:end], dtype).view(shape)
    tensors.metadata = {name: text for name, text in metadata.items() if name != FACTS}
    if FACTS in metadata:
        tensors.densessl = json.loads(metadata[FACTS])
    return tensors


def write(stream: BinaryIO, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write float32 and int64 tensors of the CPU with our facts; the same input, the same bytes."""
    import torch

    names = {getattr(torch, theirs): ours for ours, theirs in _TYPES.items()}
    packed = json.dumps(facts, sort_keys=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", FACTS: packed}}
    end = 0
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # keeps alignment
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    stream.write(struct.pack("<Q", len(text)))
    stream.write(text)
    for _, tensor in ordered:
        stream.write(tensor.contiguous().numpy().tobytes())
