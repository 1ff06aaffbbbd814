"""The form of nested plain values, as files hold them: what must be there, and of which kind.

A form is a type (or several in a tuple; ``True`` is no number), a list of one form (each entry of a
list has it), or a dict of forms by key. There, ``"key?"`` may be missing, and ``...`` stands for
every other key. What is not named may be anything.

Example: ``fault({"a": [1, "x"]}, {"a": [int]}) == "'a.1' is 'x', expected int"``
"""

import os
from dataclasses import fields
from typing import Any, cast, get_args

from .errors import InputError
from .files import read_object
from .names import brief

NUMBER = (int, float)
LARGEST = 2**63 - 1  # what counts, or is a seed, takes at most 64 bits
Form = type | tuple | list | dict


def fault(value: Any, form: Form, at: tuple = ()) -> str | None:
    """What is first not of that form, in words; None where everything is. ``at``: keys to it."""
    if isinstance(form, dict):
        return _kind(value, (dict,), at) or _of_keys(value, form, at)
    if isinstance(form, list):
        return _kind(value, (list, tuple), at) or _first(enumerate(value), form[0], at)
    return _kind(value, form if isinstance(form, tuple) else (form,), at)


def _of_keys(value: dict, form: dict, at: tuple) -> str | None:
    names = {key.rstrip("?"): key for key in form if key is not ...}
    for name, key in names.items():
        if name not in value:
            if key == name:
                return f"'{_path((*at, name))}' is missing"
        elif found := fault(value[name], form[key], (*at, name)):
            return found
    others = ((key, each) for key, each in value.items() if key not in names)
    return _first(others, form[...], at) if ... in form else None


def _first(values, form: Form, at: tuple) -> str | None:
    faults = (fault(each, form, (*at, key)) for key, each in values)
    return next(filter(None, faults), None)


def _kind(value: Any, kinds: tuple, at: tuple) -> str | None:
    if isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds):
        return None
    words = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
    where = f"'{_path(at)}'" if at else "it"
    plain = value is None or isinstance(value, str | int | float)
    return f"{where} is {brief(repr(value)) if plain else type(value).__name__}, expected {words}"


def _path(at: tuple) -> str:
    """The keys as a message names them."""
    path = ""
    for key in at:
        path = brief(f"{path}.{key}" if path else key)
    return path


def of_class(kind: type) -> dict[str, Form]:
    """That of a dataclass of plain values."""
    return {each.name: get_args(each.type) or cast(type, each.type) for each in fields(kind)}


def read(path: str | os.PathLike, what: str, form: Form) -> dict[str, Any]:
    """The object of a JSON file of ours; InputError that names it where it is not ``what`` it
    should be, or not of that form."""
    values = read_object(path, what)
    if wrong := fault(values, form):
        raise InputError(f"{path} is not {what}: {wrong}")
    return values
