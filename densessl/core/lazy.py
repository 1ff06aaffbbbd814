"""Names of a package whose modules take long to import: each is imported once it is asked for."""

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def lazily(
    package: str, home: Mapping[str, str], modules: Collection[str] = ()
) -> Callable[[str], Any]:
    """The ``__getattr__`` (PEP 562) of ``package``; ``home``: the module of it that has a name.

    ``modules``: names that are modules of it themselves.
    """

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f".{name}", package)
        if name in home:
            return getattr(importlib.import_module(f".{home[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
