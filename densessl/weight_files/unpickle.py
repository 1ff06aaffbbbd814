"""An unpickler that runs nothing: arrays, tensors and plain values, all else refused by name.

What a pickle asks for by name is looked up in the tables below and nowhere else; nothing is
imported for it. Objects that other programs put beside their weights (arguments, configs, progress)
become ``Held``: their fields, and none of their code. A module of Lightning may keep whatever it
was made with as its hyper-parameters (classes, partials, transforms): there everything is ``Held``
but what only an attack would name.
"""

import collections
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any, BinaryIO

from densessl.core.errors import InputError

from . import arrays


class Held(dict):
    """An object of another program as data: its fields are its items. Runs nothing."""

    pickled = ""  # the object's class, by its full name
    arguments: tuple
    values_in_order: list

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
        """For lists, and for sets as ``add``."""
        self.values_in_order.append(value)

    add = append

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]  # an enum may be the key of a dict

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
}
LIGHTNING = ("pytorch-lightning_version", "hyper_parameters")  # a file of a module has one of them
# What runs a program, opens a file or a connection: refused wherever it stands.
_RUNS = re.compile(
    r"(posix|nt|pty|subprocess|socket|runpy|ctypes|_ctypes|webbrowser|importlib|shutil|marshal|code"
    r"|multiprocessing|_?pickle|torch\.hub)\..+"
    r"|os\.(system|popen|exec|spawn|startfile|fork|kill|remove|unlink|rmdir|rename).*"
    r"|builtins\.(eval|exec|compile|open|input|breakpoint|globals|locals|vars|(set|del)attr"
    r"|__import__|__build_class__)|_?io\..*open.*"
)
HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
# Of each operation of a pickle: how many bytes its argument has, or how that is found out
_ARGUMENT = {ord(each.code): each.arg.n if each.arg else 0 for each in pickletools.opcodes}
_LENGTHS = {  # bytes that say how many follow
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_TWO_LINES = pickle.GLOBAL + pickle.INST


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
        self._stream = stream
        self._known = _PLAIN | arrays.names() | (known or {})
        self._storage = storage
        self._strange: list[str] = []  # names that are known nowhere, in the order of the file

    def load(self) -> Any:
        if isinstance(self._stream, BytesIO):
            check_memo(self._stream.getvalue(), self._stream.tell())
        else:
            with mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                check_memo(data, self._stream.tell())
        held = super().load()
        if self._strange and not (isinstance(held, dict) and any(key in held for key in LIGHTNING)):
            raise refused(self._strange[0])
        return held

    def find_class(self, module: str, name: str) -> Any:
        module = _OF_PYTHON_2.get(module, module)
        if (module, name) in self._known:
            return self._known[module, name]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 spells bytes
            return _encode
        if (module, name) == ("builtins", "bytes"):  # and none of them
            return _no_bytes
        if (module, name) == ("builtins", "bytearray"):
            return _bytearray
        if (module, name) == ("copyreg", "_reconstructor"):  # how protocols 0 and 1 spell objects
            return _reconstructor
        if (module, name) == ("builtins", "getattr"):
            return self._attribute
        if not _HELD.fullmatch(f"{module}.{name}"):
            self._strange.append(f"{module}.{name}")
            if _RUNS.fullmatch(f"{module}.{name}"):
                raise refused(*{self._strange[0]: 1, f"{module}.{name}": 1})
        return stand_in(f"{module}.{name}")

    def _attribute(self, owner: Any, name: str) -> Any:
        """In place of ``getattr``: mmengine's training history names its own methods with it."""
        of = getattr(owner, "pickled", type(owner).__name__)
        if of != HISTORY or name not in ("max", "min", "mean", "current"):
            self._strange.append("builtins.getattr")
        return stand_in(f"{of}.{name}")

    def persistent_load(self, saved: Any) -> Any:
        if isinstance(saved, tuple) and saved[:1] == ("module",) and len(saved) == 4:
            return saved[1]  # a class with its source, which torch.save kept before 1.6
        if self._storage is None or not isinstance(saved, tuple) or saved[:1] != ("storage",):
            raise InputError(f"it refers to an object outside of itself: {str(saved)[:80]}")
        return self._storage(saved)


def check_memo(data: bytes | mmap.mmap, begin: int) -> None:
    """Raise InputError where the pickle that begins there numbers an object higher than it has
    bytes: Python's unpickler makes room for as many, so that nine bytes may ask for 64 GB.

    What is wrong otherwise is left to the unpickler.
    """
    at = begin
    while at < len(data):
        operation = data[at : at + 1]
        kind = _ARGUMENT.get(operation[0])
        at = first = at + 1
        if kind is None or operation == pickle.STOP:
            return
        if kind == pickletools.UP_TO_NEWLINE:
            for _ in range(2 if operation in _TWO_LINES else 1):
                at = data.find(b"\n", at) + 1
                if not at:
                    return
        elif kind in _LENGTHS:
            at += _LENGTHS[kind]
            at += int.from_bytes(data[first:at], "little")
        else:
            at += kind
        number = 0
        if operation == pickle.LONG_BINPUT:
            number = int.from_bytes(data[first:at], "little")
        elif operation == pickle.PUT:
            try:
                number = int(data[first:at])
            except ValueError:
                return
        if number > at - begin:
            raise InputError(
                f"is damaged or truncated: it numbers an object {number}, after {at - begin} bytes"
            )


def refused(name: str, inner: str = "") -> InputError:
    """The error for pickled code, with what to do when it is a whole network.

    ``inner``: what ``name`` would be made of, if that is what runs something.
    """
    message = f"it holds pickled code ({name}), which will not be unpickled"
    if inner:
        return InputError(f"{message}: it names {inner}")
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


def _bytearray(data: Any = b"", encoding: str = "latin1") -> bytearray:
    """Of bytes and texts; of a number it would be as many zeros as the file wishes."""
    if isinstance(data, int):
        raise refused("builtins.bytearray")
    return bytearray(_encode(data, encoding) if isinstance(data, str) else data)
