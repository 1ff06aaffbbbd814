"""The papers' results tables: title, columns, rows of each, from the files of ``configs/papers``.

A file there says what is run (``densessl reproduce``) and, in ``layout``, ``published`` and
``columns``, what stands where; the numbers are in ``published.csv`` alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from densessl import configs
from densessl.core.errors import DenseSSLError, InputError, unknown
from densessl.core.text import read_own_yaml

from . import published
from .model import Column
from .published import Published

FOLDER = configs.FOLDER / "papers"
NAMES = Path(__file__).with_name("names.yaml")
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
class TableLayout:
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
    return tuple(sorted(_files(), key=lambda name: re.sub(r"\d+", lambda n: n[0].zfill(3), name)))


@cache
def _files() -> dict[str, dict]:
    """What the files of all tables hold that have a ``layout``."""
    found = {}
    for file in FOLDER.glob("*/*.yaml"):
        table = read_own_yaml(file)
        if "layout" in table:
            found[f"{file.parent.name}/{file.stem}"] = table
    return found


@cache
def aliases() -> dict[str, dict]:
    """What stands behind the papers' names of ``methods`` and ``data``."""
    return read_own_yaml(NAMES)


def known_as(method: str) -> str:
    """What records call a paper's method: a name of ours, else the paper's in small letters."""
    return aliases()["methods"].get(method) or re.sub(r"[^a-z0-9]+", "_", method.lower()).strip("_")


def find(name: str, variant: str | None = None) -> TableLayout:
    """The table of that name, its columns measured with ``variant`` where the protocol has it.

    Raises InputError, with the nearest name, for one that is not there, and for a variant that no
    protocol of the table has.
    """
    if name not in names():
        raise unknown("table", name, names(), "--paper")
    try:
        return _layout(name, _files()[name], variant)
    except (KeyError, TypeError, ValueError) as error:
        file = FOLDER / f"{name}.yaml"
        raise DenseSSLError(f"{file}: {type(error).__name__}: {error}") from error


def column_of(number: Published, columns: Sequence[Column]) -> Column | None:
    """Where a published number stands; not where its variant is, which another may share."""
    for column in columns:
        if (column.protocol, column.metric) == (number.protocol, number.metric):
            exact = column.protocol in VARIANT_IS_DATA
            if not exact or column.variant in number.variants:
                return column
    return None


def _layout(name: str, table: dict, variant: str | None) -> TableLayout:
    layout = table["layout"]
    where = layout["published"]
    numbers = [
        number
        for number in published.read()
        if (number.source, number.table) == (where["source"], where["table"])
    ]
    heads = layout.get("facts", {})
    sections = table.get("sections") or [{**layout, "title": "", "rows": table["rows"]}]
    rows = [
        _row(row, index, numbers, heads)
        for index, section in enumerate(sections)
        for row in section["rows"]
    ]
    return TableLayout(
        name=name,
        title=layout["title"],
        cite=layout["cite"],
        first=layout["first"],
        facts=tuple(heads.items()),
        columns=_columns(table["protocols"], name, variant),
        sections=tuple(section["title"] for section in sections),
        baselines=tuple(section.get("baseline", "") for section in sections),
        rows=tuple(rows),
        notes=tuple(layout.get("notes", ())),
        decimals=layout.get("decimals", 1),
    )


def _columns(measured: list[dict], name: str, variant: str | None) -> tuple[Column, ...]:
    from ..protocols import PROTOCOLS

    columns, taken = [], False
    for each in measured:
        protocol = PROTOCOLS[each["name"]]
        own = each.get("variant") or protocol.variants[0]
        if variant in protocol.variants and protocol.name not in VARIANT_IS_DATA:
            own, taken = variant, True
        columns += [
            Column(
                key=" ".join(filter(None, (protocol.name, own, metric))),
                head=head,
                group=group,
                protocol=protocol.name,
                variant=own,
                metric=metric,
                options=tuple(each.get("requires", each.get("options", {})).items()),
            )
            for group, metrics in each["columns"].items()
            for head, metric in metrics.items()
        ]
    if variant is not None and not taken:
        protocols = {column.protocol for column in columns} - set(VARIANT_IS_DATA)
        known = {v for protocol in protocols for v in PROTOCOLS[protocol].variants if v}
        if not known:
            raise InputError(f"--variant is '{variant}', but {name} has no protocol with variants")
        raise unknown("variant", variant, known, f"--variant of {name}")
    return tuple(columns)


def _row(row: dict, section: int, numbers: list[Published], heads: dict[str, str]) -> PaperRow:
    paper = {"method": row["method"], **row.get("published", {})}
    condition = tuple(tuple(each.split("=")) for each in paper.get("condition", "").split())
    asked = {"method": paper["method"], "epochs": paper.get("epochs")}
    asked |= {"dataset": paper.get("data"), "condition": condition}
    found = tuple(
        number
        for number in numbers
        if all(getattr(number, name) == value for name, value in asked.items() if value)
    )
    data = paper.get("data") or next((number.dataset for number in found), "")
    epochs = paper.get("epochs") or next((number.epochs for number in found), None)
    facts = dict(condition or next((number.condition for number in found), ()))
    facts |= {"data": "" if data == "none" else data, "epochs": str(epochs or "")}
    return PaperRow(
        label=paper.get("label", paper["method"]),
        method=paper["method"],
        known_as=known_as(paper["method"]),
        data=data,
        epochs=epochs,
        configs=tuple(filter(None, (row.get("pretrain"), *paper.get("also", ())))),
        options=tuple(paper.get("options", row.get("transfer", {})).items()),
        facts=tuple((head, facts.get(fact, "")) for head, fact in heads.items()),
        section=section,
        numbers=found,
    )
