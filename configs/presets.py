"""The configs of pretraining that come with DenseSSL, by name, and what a config says of itself.

A file of ``pretrain/`` is one config; a file of ``pretrain/sweeps/`` is several that differ in one
option: its SWEEP has a pattern of their ``name``, the option's ``key``, and its ``values``, each by
what stands for ``{}`` in the name. ABOUT, in any config, is a ``description`` and the ``cost`` of
the run. Neither section is an option, and none is inherited.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError, unknown
from densessl.core.options import only
from densessl.core.text import read_own_yaml, read_yaml

from . import is_ours

FOLDER = Path(__file__).with_name("pretrain")
ABOUT, SWEEP = "ABOUT", "SWEEP"
SECTION, COST = ("description", "cost"), ("v100", "hours", "source")


@dataclass(frozen=True)
class Preset:
    """A config by name; of a sweep, with its value of the option ``key``."""

    name: str
    file: Path
    key: str = ""
    value: Any = None

    def options(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The (nested) options among ``values``, which the file and its bases hold."""
        found = {key: value for key, value in values.items() if key not in (ABOUT, SWEEP)}
        if self.key:
            *groups, leaf = self.key.split(".")
            inner = found
            for group in groups:
                inner[group] = dict(inner.get(group, {}))
                inner = inner[group]
            inner[leaf] = self.value
        elif SWEEP in values:
            pattern = values[SWEEP]["name"]
            names = ", ".join(pattern.replace("{}", each) for each in values[SWEEP]["values"])
            raise InputError(f"{self.file} holds several configs; name one of them: {names}")
        return found

    def about(self) -> Mapping[str, Any]:
        """Its ABOUT, with a ``cost`` that may be {}; InputError for keys that nobody reads."""
        where = f"{ABOUT} of {self.file}"
        section = _keys(_read(self.file).get(ABOUT), SECTION, where)
        return section | {"cost": _keys(section.get("cost"), COST, f"cost in {where}")}

    def gpu_hours(self) -> float | None:
        """The V100-hours of the run; None where it says none."""
        cost = self.about()["cost"]
        return gpu_hours(cost, f"cost in {ABOUT} of {self.file}") if cost else None


def gpu_hours(cost: Mapping[str, Any], where: str) -> float:
    """Of ``{v100: how many, hours: each}``, the V100-hours."""
    try:
        return float(cost["v100"] * cost["hours"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where} is {cost}; allowed: {{v100: 8, hours: 12.5}}") from None


@cache
def built_in() -> dict[str, Preset]:
    """The configs that come with DenseSSL, by name, in order."""
    found = [Preset(file.stem, file) for file in FOLDER.glob("*.yaml")]
    for file in FOLDER.glob("sweeps/*.yaml"):
        sweep = _read(file)[SWEEP]
        for text, value in sweep["values"].items():
            found.append(Preset(sweep["name"].replace("{}", text), file, sweep["key"], value))
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def find(path: str | os.PathLike) -> Preset:
    """A config by path, or by the name (or former path) of a built-in one."""
    file = Path(path)
    if os.path.isfile(file):  # also of a name that is too long for one
        return Preset(file.stem, file)
    ours = file.suffix == ".yaml" and file.parent.resolve() == FOLDER.resolve()
    name = file.stem if ours else str(path)
    if name in built_in():
        return built_in()[name]
    raise unknown("config (no such file, and no built-in one)", str(path), built_in())


def _keys(section: Any, allowed: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(section or {}, dict):
        raise InputError(f"{where} is a group of keys, not '{section}'")
    only(section or {}, allowed, where)
    return section or {}


def _read(file: Path) -> dict[str, Any]:
    return (read_own_yaml if is_ours(file) else read_yaml)(file) or {}
