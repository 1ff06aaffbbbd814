"""Options, each declared once: the default, what it may be, the message on a value that may not.

So are those of ``densessl pretrain`` and of protocols, the flags of ``transfer``, the keys of
``slurm.yaml`` and of pipelines. A declaration is the default alone, or ``(default, rule, …)``. A
rule is a tuple of choices, or words with commas between: bounds (``">= 0, < 1"``; of a list, of
each number), ``whole`` numbers, ``rising`` ones, a ``path`` (``~`` is the home folder). Other words
mean something to those who declare them.
"""

import ast
import math
import operator
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from .errors import InputError, unknown
from .external import FORM, MARK
from .form import LARGEST
from .home import expand
from .names import brief
from .text import TRUTH

KEY = re.compile(r"[A-Za-z]\w*(\.\w+)*")
KINDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
    list: "a list",
    Mapping: "a group of keys",
    dict: "a group of keys",
}
BOUNDS = {
    ">": (operator.gt, "above"),
    ">=": (operator.ge, "at least"),
    "<": (operator.lt, "below"),
    "<=": (operator.le, "at most"),
}


@dataclass(frozen=True)
class Option:
    """What an option may be. ``kinds``: the types of its value; none: any."""

    default: Any
    kinds: tuple[type, ...] = ()
    choices: tuple[str, ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()
    words: tuple[str, ...] = ()

    def typed(self, value: Any, name: str, where: str = "") -> Any:
        """``value``, a word of a command or what YAML gives, as one of the kinds; InputError."""
        for kind in self.kinds or (object,):
            try:
                made = self._as(kind, value)
            except (ValueError, KeyError, OverflowError):
                continue
            for each in made if isinstance(made, list | tuple) else (made,):
                if isinstance(each, int | float) and abs(each) > LARGEST:
                    raise InputError(
                        f"{_at(name, where)} is {brief(each)}; it must be at most {LARGEST}"
                    )
            return made
        kinds = " or ".join(KINDS[kind] for kind in self.kinds if kind is not NoneType)
        limits = f", {self._limits()}" if self.bounds else ""
        example = f", such as {self.default!r}" if self.default not in (None, "", (), []) else ""
        shown = f"{_at(name, where)} is '{brief(value)}'"
        raise InputError(f"{shown}; it must be {kinds}{limits}{example}")

    def _as(self, kind: type, value: Any) -> Any:
        """``value`` as a ``kind``; ValueError or KeyError where it is none."""
        text = isinstance(value, str)
        if kind is object:
            return parsed(value) if text else value
        if kind is str and not (value is None or isinstance(value, dict | list | tuple)):
            if isinstance(value, bool):  # YAML's on and off
                return "on" if value else "off"
            truth = {"false": "off", "true": "on"}.get(str(value).lower())
            if truth in self.choices:
                return truth
            return expand(value) if text and "path" in self.words else str(value)
        if kind is NoneType and (value is None or value == "" and str not in self.kinds):
            return None
        if kind is bool and text:
            return TRUTH[value.lower()]
        if kind in (int, float) and text or kind is float and type(value) is int:
            value = kind(value)
        if kind in (tuple, list):
            value = parsed(value) if text else value
            value = kind(value) if isinstance(value, list | tuple) else value
        finite = not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, kind) and finite and isinstance(value, bool) == (kind is bool):
            return value
        raise ValueError

    def check(self, value: Any, name: str, where: str = "") -> None:
        """InputError for a value of the right kind that is no choice, or out of bounds."""
        own = FORM in self.choices and MARK in str(value)
        own |= any(str(value).startswith(begin) for begin in self._free())
        if self.choices and value not in self.choices and not own:
            label = f"{name} of {where}" if where else name
            raise unknown("value", str(value), self.choices, label)
        several = isinstance(value, tuple | list)
        numbers = value if several else () if value is None else (value,)
        rises = "rising" in self.words
        if not all(map(self._holds, numbers)) or (rises and [*numbers] != sorted({*numbers})):
            which = "each" if several and not self._numbers() else "it"
            raise InputError(f"{_at(name, where)} is {value}; {which} must be {self._limits()}")

    def _free(self) -> list[str]:
        """What choices such as ``timm/NAME`` begin with, whose NAME others check."""
        return [each.removesuffix("NAME") for each in self.choices if each.endswith("/NAME")]

    def _holds(self, value: Any) -> bool:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not (self.bounds or self._numbers()):
            return True
        if not numeric or ("whole" in self.words and not isinstance(value, int)):
            return False
        return math.isfinite(value) and all(BOUNDS[sign][0](value, n) for sign, n in self.bounds)

    def _numbers(self) -> str:
        kinds = [word for word in ("rising", "whole") if word in self.words]
        return f"{' '.join(kinds)} numbers" if kinds else ""

    def _limits(self) -> str:
        bounds = " and ".join(f"{BOUNDS[sign][1]} {n:g}" for sign, n in self.bounds)
        return ", ".join(filter(None, (self._numbers(), bounds)))


def option(default: Any, *rules: tuple[str, ...] | str, kinds: tuple[type, ...] = ()) -> Option:
    """A declared option; of the default's type unless ``kinds`` says others."""
    choices: tuple[str, ...] = ()
    bounds, words = [], []
    for rule in rules:
        if isinstance(rule, tuple):
            choices = rule
            continue
        for part in rule.split(", "):
            sign, _, number = part.partition(" ")
            if sign in BOUNDS:
                bounds.append((sign, float(number)))
            else:
                words.append(part)
    kinds = kinds or (() if default is None else (type(default),))
    return Option(default, kinds, choices, tuple(bounds), tuple(words))


def declared(options: Mapping[str, Any]) -> dict[str, Option]:
    """The options by name of a table of declarations."""
    return {
        name: option(*(each if isinstance(each, tuple) else (each,)))
        for name, each in options.items()
    }


def of_class(kind: type, **rules: tuple[str, ...] | str) -> dict[str, Option]:
    """The fields of a dataclass as options, some with a rule."""
    found = {}
    for each in fields(kind):
        kinds = get_args(each.type) if isinstance(each.type, UnionType) else (each.type,)
        default = None if each.default is MISSING else each.default
        given = [rules[each.name]] if each.name in rules else []
        kinds = tuple(get_origin(kind) or kind for kind in kinds)
        found[each.name] = option(default, *given, kinds=kinds)
    return found


def read(
    values: Mapping[str, Any], options: Mapping[str, Option], where: str, *others: str
) -> dict[str, Any]:
    """``values`` as their options' kinds; InputError for an unknown key or a value that cannot be.

    ``others``: keys that are allowed beside the options, and not read here.
    """
    only(values, (*options, *others), where)
    found = {}
    for key, value in values.items():
        found[key] = options[key].typed(value, key, where)
        options[key].check(found[key], key, where)
    return found


def only(values: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """InputError for a key that is none of ``allowed``."""
    allowed = list(allowed)
    for key in values:
        if key not in allowed:
            raise unknown("key", str(key), allowed, where)


def check(values: Mapping[str, Any], options: Mapping[str, Option]) -> None:
    """InputError for the first option whose value cannot be, in a (nested) config."""
    given = flat(values)
    for name, each in options.items():
        each.check(given[name], name)


def as_keyword(name: str) -> str:
    """An option as the argument of a Python function: ``solver_base_lr`` for SOLVER.BASE_LR."""
    return name.lower().replace(".", "_")


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options of a (nested) config under their dotted names."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round: ``{"A.B": 1}`` is ``{"A": {"B": 1}}``."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        *groups, leaf = name.split(".")
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[leaf] = value
    return found


def parsed(text: str) -> Any:
    """The number, list … that Python's literal ``text`` is; any other text is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def bare(text: str) -> str:
    """``text`` of the command line without the quotes that a careful person put into it."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return str(parsed(text)) if quoted else text


def argument(rule: str, kind: type = int) -> Callable[[str], Any]:
    """The ``type`` of an argument on the command line: a number by its rule, as ``">= 1"``."""
    made = option(None, rule, kinds=(kind,))

    def read(text: str) -> Any:
        try:
            value = made.typed(text, "the value")
            made.check(value, "the value")
        except InputError as error:
            raise ArgumentTypeError(str(error)) from None
        return value

    return read


def is_option(word: str) -> bool:
    """Whether the word is KEY or KEY=VALUE, and no file or name: options are in capitals."""
    key = word.partition("=")[0]
    return bool(KEY.fullmatch(key)) and key == key.upper()


def pairs(words: Sequence[str]) -> list[str]:
    """``KEY VALUE`` and ``KEY=VALUE`` in any mixture as KEY, VALUE, …; InputError for a key alone.

    Example: ``pairs(["SOLVER.EPOCHS=10", "SEED", "3"]) == ["SOLVER.EPOCHS", "10", "SEED", "3"]``
    """
    found: list[str] = []
    left = [str(word) for word in words]
    while left:
        word = left.pop(0)
        key, equals, value = word.partition("=")
        if equals and KEY.fullmatch(key):
            found += [key, value]
        elif left:
            found += [word, left.pop(0)]
        else:
            raise InputError(
                f"overrides come as KEY VALUE pairs; '{word}' has no value (KEY=VALUE is one, too)"
            )
    return found


def _at(name: str, where: str) -> str:
    return f"{name} in {where}" if where else name
