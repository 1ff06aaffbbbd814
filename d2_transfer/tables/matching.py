"""Which record belongs to which row and columns of a paper's table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from densessl.core.errors import InputError

from ..results import Record, config_of
from .layouts import LENGTH, PaperRow, TableLayout, aliases
from .model import Column

BY_FACTS = "matched by method, data and epochs: its record names no pretraining config"
BY_METHOD = "matched by its method: its record does not say what it was pretrained on"


@dataclass
class PlacedRecords:
    """Records by the index of their row, others under the table's protocols, and what is left out.

    ``remarks``: what must be said of a row's records. ``messages``: one for each kind of records
    that the table leaves out, naming some. ``elsewhere``: records of other protocols, by protocol.
    """

    rows: dict[int, list[Record]] = field(default_factory=dict)
    others: list[Record] = field(default_factory=list)
    remarks: dict[int, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    elsewhere: Counter = field(default_factory=Counter)


def place(layout: TableLayout, records: Sequence[Record]) -> PlacedRecords:
    """Give each record its row.

    A record of the table's protocols is left out, with a message, when it is a miniature, it has
    another variant, its fine-tuning was configured otherwise than the table's, or several rows fit
    it. A record that fits the columns but no row is among ``others``.
    """
    placed = PlacedRecords()
    left: dict = {}
    protocols = {column.protocol for column in layout.columns}
    for record in records:
        if record.protocol not in protocols:
            placed.elsewhere[record.protocol] += 1
            continue
        if why := _unfit(layout, record):
            left.setdefault(why, []).append(record)
            continue
        fit, remark = _rows(layout, record)
        if len(fit) > 1:
            labels = " or ".join(f"'{layout.rows[index].label}'" for index in fit)
            why = f"may be {labels}: the record does not name the config of its pretraining"
            left.setdefault(why, []).append(record)
        elif fit:
            placed.rows.setdefault(fit[0], []).append(record)
            if remark:
                placed.remarks[fit[0]] = remark
        else:
            placed.others.append(record)
    placed.messages = [_message(layout, why, found) for why, found in left.items()]
    return placed


def _message(layout: TableLayout, why: str, records: list[Record]) -> str:
    some = [str(record.folder) for record in records[:3]]
    more = f" and {len(records) - 3} more" if len(records) > 3 else ""
    methods = ", ".join(Counter(record.method for record in records))
    return f"not in {layout.name}: {methods} ({', '.join(some)}{more}): {why}"


def config_names(facts: dict) -> list[str]:
    """The built-in configs whose options a pretraining had: one, or those that differ by nothing.

    Empty for a run of other options; such a run is no row of a paper.
    """
    names = facts.get("config_name") or []
    return [str(name) for name in (names if isinstance(names, list) else [names])]


def columns_of(layout: TableLayout, record: Record) -> list[Column]:
    """The columns that the record's protocol, variant and config fit."""
    return [
        column
        for column in layout.columns
        if (column.protocol, column.variant) == (record.protocol, record.variant)
    ]


def _unfit(layout: TableLayout, record: Record) -> str:
    """Why the record cannot stand in any column; empty when it can."""
    if record.mini:
        return "a miniature never stands beside published numbers"
    if not (columns := columns_of(layout, record)):
        same = [column for column in layout.columns if column.protocol == record.protocol]
        known = " or ".join(dict.fromkeys(column.variant or "none" for column in same))
        return (
            f"its variant of {record.protocol} is {record.variant or 'none'}, the table's is "
            f"{known}; variants are never mixed"
        )
    return _wrong_option(columns[0].options, record)


def _wrong_option(options: Sequence[tuple[str, object]], record: Record) -> str:
    if not options:
        return ""
    try:
        config = config_of(record)
    except InputError as error:
        return str(error)
    if config is None:
        keys = ", ".join(key for key, _ in options)
        return f"there is no config.yaml beside the record to tell {keys}"
    for key, value in options:
        has = config.get(key, type(value)())  # what a config has no key for is off
        if has != value:
            return f"{key} is {has!r} there, {value!r} in the table"
    return ""


def _rows(layout: TableLayout, record: Record) -> tuple[list[int], str]:
    """The rows that fit the record, and what must be said of how they were found."""
    fit, remark = [], ""
    for index, row in enumerate(layout.rows):
        how = _how(row, record)
        if how is not None and not _wrong_option(row.options, record):
            fit.append(index)
            remark = how
    return fit, remark


def _how(row: PaperRow, record: Record) -> str | None:
    """None where the row is not the record's; else what must be said of the match, mostly ''."""
    facts = record.pretrain
    if record.method == "random":
        return "" if row.known_as == "random" else None
    if "config_name" in facts:
        fit = [name for name in config_names(facts) if name in row.configs]
        same = _same_data(row.data, facts)
        return "" if same and any(_same_epochs(name, facts) for name in fit) else None
    if record.method != row.known_as:
        return None
    if record.method == "supervised":
        if "dataset" in facts:
            return BY_FACTS if _same_data(row.data, facts) else None
        return BY_METHOD if row.data == "IN-1K" else None
    same = row.epochs is not None and _close(facts.get("epochs"), row.epochs)
    return BY_FACTS if same and _same_data(row.data, facts) else None


def _same_data(data: str, facts: dict) -> bool:
    known = aliases()["data"].get(data)
    if known is None:
        return False
    name = str(facts.get("dataset") or "")
    base, _, classes = name.partition(" (")
    wanted = known.get("classes", "")
    if classes:
        return classes.rstrip(")") == wanted
    if "images" in facts and "images" in known:
        return facts["images"] in known["images"]
    return base.casefold() in {each.casefold() for each in known["names"]}


def _same_epochs(config: str, facts: dict) -> bool:
    """Whether the run was as long as its config's name says; a name may say nothing."""
    length = LENGTH.search(config)
    return length is None or _close(facts.get("epochs"), int(length[1]))


def _close(epochs: object, wanted: int) -> bool:
    """Equal but for the rounding of steps to epochs."""
    return isinstance(epochs, int | float) and abs(epochs - wanted) <= 0.01 * wanted
