"""The user's own data: which files and folders a protocol takes on the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError

from . import flags
from .protocols import CLASSIFICATION, DENSE, PROTOCOLS, Protocol

_ORDER = tuple(  # of the flags, as the protocols name them
    dict.fromkeys(
        name for each in PROTOCOLS.values() for name in (*each.instead, *each.needs, *each.takes)
    )
)
FOLDER = "annotations"  # below that of the trials: what was read, as COCO's JSON


def given(protocol: Protocol, flags_given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the flags, by name; InputError for one that is missing, or that is not for it."""
    found = {name: value for name in _ORDER if (value := flags_given.get(name)) is not None}
    instead = not found.keys().isdisjoint(protocol.instead)
    needs, takes = protocol.needs, protocol.takes or _of_known_data(protocol)
    if instead:
        needs, takes = protocol.instead[:1], protocol.instead[1:]
    for name in needs:
        if not found.get(name):
            other = f" (or {flags.shown(protocol.instead[0])})" if protocol.instead[1:] else ""
            other = "" if instead else other
            raise InputError(
                f"{flags.shown(name)} is missing{other}: {protocol.name} reads your own data"
            )
    for name, value in found.items():
        if name not in (*needs, *takes):
            why = f"{protocol.name} {'takes none' if needs else 'reads its own data sets'}"
            if instead and name in (*protocol.needs, *protocol.takes):
                why = f"{flags.shown(needs[0])} names the data already"
            raise InputError(f"{flags.shown(name)} is '{value}', but {why}")
    if "data_seed" in found and "labels" not in found and _of_known_data(protocol):
        raise InputError(
            f"--data-seed is {found['data_seed']}, but without --labels nothing is drawn"
        )
    return found


def _of_known_data(protocol: Protocol) -> tuple[str, ...]:
    """What is taken with known data sets: it becomes part of the config."""
    return () if protocol.needs or protocol.instead else ("labels", "data_seed")


def of(protocol: Protocol, flags_given: Mapping[str, Any]):
    """The data that they name, read and checked whole: a :class:`datasets.custom.Custom`, a
    :class:`dense_probes.own.OwnData` or a :class:`classification.own.OwnImages`; None for other
    protocols.

    What their ``written`` writes lies below ``output_dir``: of annotations in any form COCO's JSON,
    or label images.
    """
    found = given(protocol, flags_given)
    if not found or _of_known_data(protocol):
        return None
    if protocol.family == CLASSIFICATION:
        from . import classification

        return classification.read_own(**found)
    folder = Path(flags_given.get("output_dir") or "").absolute() / FOLDER
    if protocol.family == DENSE:
        from . import dense_probes

        if "train" in found:
            return dense_probes.read_any_form(folder, **found)
        return dense_probes.read_own(**found)
    from .datasets import any_form, custom

    need: dict[str, Any] = {
        "need_masks": "segm/AP" in protocol.metrics,
        "need_keypoints": "keypoints/AP" in protocol.metrics,
    }
    if "train" in found:
        return any_form.read(folder, **need, **found)
    return custom.read(**found, **need)
