"""The user's own data: which files and folders a protocol takes on the command line."""

from collections.abc import Mapping
from typing import Any

from densessl.core.errors import InputError

from . import flags
from .protocols import DENSE, PROTOCOLS, Protocol

_ORDER = tuple(  # of the flags, as the protocols name them
    dict.fromkeys(name for each in PROTOCOLS.values() for name in (*each.needs, *each.takes))
)


def given(protocol: Protocol, flags_given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the flags, by name; InputError for one that is missing, or that is not for it."""
    found = {name: value for name in _ORDER if (value := flags_given.get(name)) is not None}
    for name in protocol.needs:
        if not found.get(name):
            raise InputError(f"{flags.shown(name)} is missing: {protocol.name} reads your own data")
    for name, value in found.items():
        if name not in (*protocol.needs, *protocol.takes):
            why = "takes none" if protocol.needs else "reads its own data sets"
            raise InputError(f"{flags.shown(name)} is '{value}', but {protocol.name} {why}")
    return found


def of(protocol: Protocol, flags_given: Mapping[str, Any]):
    """The data that they name, read and checked whole: a :class:`datasets.custom.Custom`, or
    :class:`dense_probes.own.OwnData`; None for other protocols."""
    found = given(protocol, flags_given)
    if not found:
        return None
    if protocol.family == DENSE:
        from . import dense_probes

        return dense_probes.read_own(**found)
    from .datasets import custom

    return custom.read(**found, need_masks="segm/AP" in protocol.metrics)
