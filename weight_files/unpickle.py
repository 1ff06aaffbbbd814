"""An unpickler that runs nothing: arrays, tensors and plain values, all else refused by name.

What a pickle asks for by name is looked up in the tables below and nowhere else; nothing is
imported for it. Objects that other programs put beside their weights (arguments, configs, progress)
become ``Held``: their fields, and none of their code.
"""

import collections
import pickle
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO

from console.errors import InputError

from . import arrays


class Held(dict):
    """An object of another program as data: its fields are its items. Runs nothing."""

    pickled = ""  # the object's class, by its full name

    def __new__(cls, *arguments: Any, **named: Any) -> "Held":
        held = super().__new__(cls)
        held.arguments = arguments
        held.values_in_order = []
        return held

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        for fields in state if isinstance(state, tuple) else (state,):
            if isinstance(fields, dict):
                self.update(fields)

    def extend(self, values: Any) -> None:
        """For classes that are lists."""
        self.values_in_order.extend(values)

    def append(self, value: Any) -> None:
        self.values_in_order.append(value)

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # an enum may be the key of a dict

    def __repr__(self) -> str:
        return f"<{self.pickled}>"


# Whose objects lie beside weights: held as data, whatever they are.
_PROGRAMS = (
    "addict|apex|classy_vision|easydict|fvcore|lightly|lightning|lightning_fabric"
    "|lightning_utilities|mmcls|mmcv|mmdet|mmengine|mmpretrain|mmselfsup|omegaconf|openselfsup"
    "|pytorch_lightning|solo|vissl|yacs"
)
_HELD = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|typing\.Any|collections\.(defaultdict|deque)"
    r"|datetime\.\w+|pathlib\.(_local\.)?\w*Path|uuid\.UUID|torch\.torch_version\.TorchVersion"
    r"|builtins\.(bool|dict|float|int|list|long|object|range|slice|str|tuple|unicode|xrange)"
    rf"|torch\.optim\.[\w.]+|({_PROGRAMS})\.[\w.]+"
)
_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # protocols 0 to 2 say these
_PLAIN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "Counter"): collections.Counter,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("builtins", "bytearray"): bytearray,
}
HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"


class Unpickler(pickle.Unpickler):
    """Reads one pickle of ``stream``; ``known``: more names, (module, name) -> what stands for it.

    ``load()`` raises InputError naming the first thing that is not known.
    """

    def __init__(
        self,
        stream: BinaryIO,
        known: dict[tuple[str, str], Any] | None = None,
        storage: Callable[[tuple], Any] | None = None,
    ):
        super().__init__(stream, encoding="latin1")  # Python 2 wrote its text as bytes
        self._known = _PLAIN | arrays.names() | (known or {})
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        module = _OF_PYTHON_2.get(module, module)
        if (module, name) in self._known:
            return self._known[module, name]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 spells bytes
            return _encode
        if (module, name) == ("builtins", "bytes"):  # and none of them
            return _no_bytes
        if (module, name) == ("copyreg", "_reconstructor"):  # how protocols 0 and 1 spell objects
            return _reconstructor
        if (module, name) == ("builtins", "getattr"):
            return _attribute
        if _HELD.fullmatch(f"{module}.{name}"):
            return stand_in(f"{module}.{name}")
        raise refused(f"{module}.{name}")

    def persistent_load(self, saved: Any) -> Any:
        if self._storage is None or not isinstance(saved, tuple) or saved[:1] != ("storage",):
            raise InputError(f"it refers to an object outside of itself: {str(saved)[:80]}")
        return self._storage(saved)


def refused(name: str) -> InputError:
    """The error for pickled code, with what to do when it is a whole network."""
    message = f"it holds pickled code ({name}), which will not be unpickled"
    if re.match(r"(torch\.nn|torchvision|timm|__main__)\.", name):
        message += (
            "; if a whole network was saved, load it where its code is and save its state_dict()"
        )
    return InputError(message)


@lru_cache
def stand_in(name: str) -> type[Held]:
    """The class that stands for the class ``name`` of another program."""
    return type(name.rpartition(".")[2], (Held,), {"pickled": name})


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "utf-8")


def _no_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise refused("builtins.bytes")
    return b""


def _reconstructor(cls: Any, base: Any, state: Any) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, Held)):
        raise refused("copyreg._reconstructor")
    return cls()


def _attribute(owner: Any, name: str) -> Any:
    """In place of ``getattr``: mmengine's training history names its own methods with it."""
    if getattr(owner, "pickled", "") != HISTORY or name not in ("max", "min", "mean", "current"):
        raise refused("builtins.getattr")
    return stand_in(f"{HISTORY}.{name}")
