"""What a study consists of, and its file ``study.json``: the plan that every job of it reads."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError
from densessl.core.files import read_object, write_json

from .draws import Share

FILE = "study.json"
SCHEMA = 1
RANDOM, GIVEN, PRETRAINED = "random", "given", "pretrained"  # kinds of arms


# Seconds of a trial by its effort and its labelled images; of what a network's trials share, by
# effort.
Timing = tuple[Callable[[int, int], float], Callable[[int], float]]


@dataclass(frozen=True)
class Reads:
    """What a trial learns from and is measured with: options of ``densessl transfer``."""

    own_data: dict[str, str | int] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    data: Path | None = None


@dataclass(frozen=True)
class PlannedProtocol:
    """What every arm is measured with; ``options`` are those of ``densessl transfer``."""

    name: str
    variant: str
    metric: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return "-".join(filter(None, (self.name, self.variant)))


@dataclass(frozen=True)
class Arm:
    """What is compared: a random start, given weights, or a method that is pretrained here.

    ``trials`` has each share of the labels, of each pretraining where there are several.
    ``options`` are the KEY VALUE words of its pretrainings, ``steps`` of each of them,
    ``steps_full`` what so many images deserve. ``seconds``: what one took, once it has.
    """

    name: str
    kind: str
    weights: str = ""
    config: str = ""
    options: tuple[str, ...] = ()
    pretrainings: int = 0
    trials: int = 1
    steps: int = 0
    steps_full: int = 0
    images_per_second: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """The whole study; docs/study.md says what its keys mean.

    ``expected``: seconds of each job by its name, where they are known. ``told``: the words that
    decide what a study is; the same command has the same.
    """

    task: str
    images: str
    n_images: int
    train: str
    val: str
    network: str
    protocols: tuple[PlannedProtocol, ...]
    arms: tuple[Arm, ...]
    labels: tuple[Share, ...]
    seeds: int
    mini: bool
    budget_s: float | None
    left_out: tuple[str, ...]
    command: str
    told: dict[str, Any]
    expected: dict[str, float] = field(default_factory=dict)
    label_draw: str = "by_trial"  # each draws its own labels, the same for all arms
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    def with_left_out(self, sentence: str) -> "Plan":
        if sentence in self.left_out:
            return self
        return replace(self, left_out=(*self.left_out, sentence))


def read(folder: Path) -> Plan | None:
    """The plan that lies in ``folder``; None where there is none. InputError for another file."""
    file = folder / FILE
    if not file.is_file():
        return None
    values = read_object(file, "a plan of a study")
    try:
        if values["schema"] != SCHEMA:
            raise InputError(f"{file}: schema is {values['schema']}; this DenseSSL reads {SCHEMA}")
        parts = {"protocols": PlannedProtocol, "arms": Arm, "labels": Share}
        for key, kind in parts.items():
            values[key] = tuple(kind(**_tuples(each)) for each in values[key])
        values["left_out"] = tuple(values["left_out"])
        return Plan(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is no plan of a study: {error}") from None


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def parse_duration(word: str, flag: str) -> float:
    """Seconds of ``2h``, ``1h30m``, ``90min``, ``45s``; InputError."""
    import re

    found = re.fullmatch(
        r"(?:(?P<d>[\d.]+)d)?(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m(?:in)?)?(?:(?P<s>[\d.]+)s)?",
        word.replace(" ", "").lower(),
    )
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    try:
        seconds = sum(float(found[key] or 0) * units[key] for key in units) if found else 0
    except ValueError:
        seconds = 0
    if not seconds > 0:
        raise InputError(f"{flag} is '{word}'; allowed: a duration, as 2h, 90min or 1h30m")
    return seconds


def unique(names: Sequence[str], what: str) -> None:
    """InputError where two have one name."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{what} '{twice[0]}' is there twice")
