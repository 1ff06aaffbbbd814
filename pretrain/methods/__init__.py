"""Methods: a framework, a correspondence and a loss each."""

from importlib import import_module

from fvcore.common.config import CfgNode

from densessl.core.errors import InputError
from densessl.core.external import load_object

from ..options import DECLARED
from ..options import METHODS as HOMES
from .base import Method


def _load(place: str) -> type[Method]:
    file, name = place.split(".")
    return getattr(import_module(f".{file}", __name__), name)


METHODS: dict[str, type[Method]] = {name: _load(place) for name, place in HOMES.items()}


def find_method(name: str) -> type[Method]:
    """A method by its name, or a subclass of Method by ``path/to/file.py:Class``.

    Raises InputError for an unknown name, and for a class that is no Method.
    """
    DECLARED["METHOD.NAME"].check(name, "METHOD.NAME")
    if name in METHODS:
        return METHODS[name]
    found = load_object(name, "method", "METHOD.NAME")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"METHOD.NAME: {name} is no subclass of pretrain.methods.Method")
    return found


def build_method(cfg: CfgNode) -> Method:
    """The method that ``cfg.METHOD.NAME`` names, built from ``cfg``; InputError when unknown."""
    return find_method(cfg.METHOD.NAME)(cfg)


__all__ = ["METHODS", "Method", "build_method", "find_method"]
