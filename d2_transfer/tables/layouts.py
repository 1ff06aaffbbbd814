"""The papers' results tables: title, columns, rows of each, from ``papers/<paper>/<table>.yaml``.

A layout says what stands where; the numbers are in ``published.csv`` alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from densessl.core.errors import DenseSSLError, InputError, unknown

from . import published
from .model import Column
from .published import Published

FOLDER = Path(__file__).with_name("papers")
VARIANT_IS_DATA = ("finetune_cls",)  # its variants are not ways to measure one thing
LENGTH = re.compile(r"_(\d+)ep$")  # ends the names of the configs of pretraining


@dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table, and which of our records belong to it.

    ``label`` is what the row is called (unique in its section), ``method`` the paper's name of the
    method. A record belongs here when its pretraining config is one of ``configs``; weights from
    elsewhere when they are ``known_as`` (a method's name in records), and data and epochs agree.
    ``options``: what the config of the fine-tuning must say. ``numbers`` are the published ones.
    """

    label: str
    method: str
    known_as: str
    data: str
    epochs: int | None
    configs: tuple[str, ...]
    options: tuple[tuple[str, object], ...]
    facts: tuple[tuple[str, str], ...]
    section: int
    numbers: tuple[Published, ...]


@dataclass(frozen=True)
class Layout:
    """A paper's table.

    ``facts``: heads of what stands between a row's label and its numbers, with what that is.
    ``baselines``: a row's label for each section, empty for none.
    """

    name: str
    title: str
    cite: str
    first: str
    facts: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    sections: tuple[str, ...]
    baselines: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    decimals: int


@cache
def names() -> tuple[str, ...]:
    """The names of all tables, ``setsim/table4``, a paper after the other."""
    found = [f"{file.parent.name}/{file.stem}" for file in FOLDER.glob("*/*.yaml")]
    return tuple(sorted(found, key=lambda name: re.sub(r"\d+", lambda n: n[0].zfill(3), name)))


@cache
def aliases() -> dict[str, dict]:
    """What stands behind the papers' names of ``methods`` and ``data``."""
    return yaml.safe_load((FOLDER / "names.yaml").read_text(encoding="utf-8"))


def known_as(method: str) -> str:
    """What records call a paper's method: a name of ours, else the paper's in small letters."""
    return aliases()["methods"].get(method) or re.sub(r"[^a-z0-9]+", "_", method.lower()).strip("_")


def find(name: str, variant: str | None = None) -> Layout:
    """The table of that name, its columns measured with ``variant`` where the protocol has it.

    Raises InputError, with the nearest name, for one that is not there, and for a variant that no
    protocol of the table has.
    """
    if name not in names():
        raise unknown("table", name, names(), "--paper")
    file = FOLDER / f"{name}.yaml"
    try:
        return _layout(name, yaml.safe_load(file.read_text(encoding="utf-8")), variant)
    except (KeyError, TypeError, ValueError) as error:
        raise DenseSSLError(f"{file}: {type(error).__name__}: {error}") from error


def column_of(number: Published, columns: Sequence[Column]) -> Column | None:
    """Where a published number stands; not where its variant is, which another may share."""
    for column in columns:
        if (column.protocol, column.metric) == (number.protocol, number.metric):
            exact = column.protocol in VARIANT_IS_DATA
            if not exact or column.variant in number.variants:
                return column
    return None


def _layout(name: str, told: dict, variant: str | None) -> Layout:
    where = told["published"]
    numbers = [
        number
        for number in published.read()
        if (number.source, number.table) == (where["source"], where["table"])
    ]
    heads = told.get("facts", {})
    sections = told["sections"]
    rows = [
        _row(row, index, numbers, heads)
        for index, section in enumerate(sections)
        for row in section["rows"]
    ]
    return Layout(
        name=name,
        title=told["title"],
        cite=told["cite"],
        first=told["first"],
        facts=tuple(heads.items()),
        columns=_columns(told["columns"], name, variant),
        sections=tuple(section["title"] for section in sections),
        baselines=tuple(section.get("baseline", "") for section in sections),
        rows=tuple(rows),
        notes=tuple(told.get("notes", ())),
        decimals=told.get("decimals", 1),
    )


def _columns(groups: list[dict], name: str, variant: str | None) -> tuple[Column, ...]:
    from ..protocols import PROTOCOLS

    columns, taken = [], False
    for group in groups:
        protocol = PROTOCOLS[group["protocol"]]
        own = group.get("variant", "")
        if variant in protocol.variants and protocol.name not in VARIANT_IS_DATA:
            own, taken = variant, True
        for head, metric in group["metrics"].items():
            columns.append(
                Column(
                    key=" ".join(filter(None, (protocol.name, own, metric))),
                    head=head,
                    group=group["group"],
                    protocol=protocol.name,
                    variant=own,
                    metric=metric,
                    options=tuple(group.get("options", {}).items()),
                )
            )
    if variant is not None and not taken:
        protocols = {column.protocol for column in columns} - set(VARIANT_IS_DATA)
        known = {v for protocol in protocols for v in PROTOCOLS[protocol].variants if v}
        if not known:
            raise InputError(f"--variant is '{variant}', but {name} has no protocol with variants")
        raise unknown("variant", variant, known, f"--variant of {name}")
    return tuple(columns)


def _row(told: dict, section: int, numbers: list[Published], heads: dict[str, str]) -> PaperRow:
    condition = tuple(tuple(each.split("=")) for each in told.get("condition", "").split())
    asked = {name: told[name] for name in ("method", "epochs") if name in told}
    asked |= {"dataset": told["data"]} if "data" in told else {}
    asked |= {"condition": condition} if condition else {}
    found = tuple(
        number
        for number in numbers
        if all(getattr(number, name) == value for name, value in asked.items())
    )
    data = told.get("data") or next((number.dataset for number in found), "")
    epochs = told.get("epochs") or next((number.epochs for number in found), None)
    config = told.get("config", ())
    told_facts = dict(condition or next((number.condition for number in found), ()))
    told_facts |= {"data": "" if data == "none" else data, "epochs": str(epochs or "")}
    return PaperRow(
        label=told.get("label", told["method"]),
        method=told["method"],
        known_as=known_as(told["method"]),
        data=data,
        epochs=epochs,
        configs=(config,) if isinstance(config, str) else tuple(config),
        options=tuple(told.get("options", {}).items()),
        facts=tuple((head, told_facts.get(fact, "")) for head, fact in heads.items()),
        section=section,
        numbers=found,
    )
