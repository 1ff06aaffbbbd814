"""The published numbers, ``published.csv``: read once, checked, each with where it is from."""

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from densessl.core.errors import DenseSSLError, unknown

FILE = Path(__file__).with_name("published.csv")
# fmt: off
COLUMNS = (
    "source", "table", "method", "pretrain_dataset", "pretrain_epochs", "protocol", "variant",
    "data", "condition", "metric", "value", "delta_vs_baseline", "suspect", "note",
)
# fmt: on


@dataclass(frozen=True)
class Published:
    """One number of one paper.

    ``protocol`` and ``metric`` are ours (``voc_det_c4``, ``bbox/AP``); ``method`` is spelled as in
    the paper. ``variants``: those of the protocol that the number may have been measured with,
    empty where the paper does not tell. ``data``: the data set of a classification protocol that
    knows several. ``condition``: what else tells the row, ``{"matching": "Sort"}``. ``value`` is
    in per cent and NaN where the paper gives only ``delta``, the difference from its baseline (NaN
    where it prints none). ``suspect``: not to be used as a target, and ``notes`` say why.
    """

    source: str
    table: str
    method: str
    dataset: str
    epochs: int | None
    protocol: str
    variants: tuple[str, ...]
    data: str
    condition: tuple[tuple[str, str], ...]
    metric: str
    value: float
    delta: float
    suspect: bool
    notes: tuple[str, ...]


@cache
def read(path: Path = FILE) -> tuple[Published, ...]:
    """All published numbers, in the file's order.

    Raises DenseSSLError with the line for a value that is no number, an unknown protocol, variant
    or metric, a number outside 0 to 100, a suspect one without a note, and one that occurs twice.
    """
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DenseSSLError(f"{path}: the columns are {reader.fieldnames}, not {list(COLUMNS)}")
        found: dict[tuple, Published] = {}
        for line, row in enumerate(reader, start=2):
            try:
                each = _parse(row)
                _check(each)
            except (ValueError, DenseSSLError) as error:
                raise DenseSSLError(f"{path}, line {line}: {error}") from None
            row_of = (each.source, each.table, each.method, each.dataset, each.epochs)
            of_metric = (each.protocol, each.variants, each.data, each.condition, each.metric)
            key = row_of + of_metric
            if key in found:
                raise DenseSSLError(f"{path}, line {line}: the same number stands there twice")
            found[key] = each
    return tuple(found.values())


def _parse(row: dict[str, str]) -> Published:
    if row["suspect"] not in ("0", "1"):
        raise ValueError(f"'suspect' is '{row['suspect']}', not 0 or 1")
    return Published(
        source=row["source"],
        table=row["table"],
        method=row["method"],
        dataset=row["pretrain_dataset"],
        epochs=int(row["pretrain_epochs"]) if row["pretrain_epochs"] else None,
        protocol=row["protocol"],
        variants=tuple(row["variant"].split("/")) if row["variant"] else (),
        data=row["data"],
        condition=_condition(row["condition"]),
        metric=row["metric"],
        value=float(row["value"] or math.nan),
        delta=float(row["delta_vs_baseline"] or math.nan),
        suspect=row["suspect"] == "1",
        notes=tuple(row["note"].split(" | ")) if row["note"] else (),
    )


def _condition(text: str) -> tuple[tuple[str, str], ...]:
    """``backbone=R101 bs=256`` as pairs."""
    pairs = [each.partition("=") for each in text.split()]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise ValueError(f"'condition' is '{text}', not NAME=VALUE: '{wrong[0]}'")
    return tuple((name, value) for name, _, value in pairs)


def _check(each: Published) -> None:
    from ..protocols import PROTOCOLS  # it imports what tables without records do not need

    if each.protocol not in PROTOCOLS:
        raise unknown("protocol", each.protocol, PROTOCOLS)
    protocol = PROTOCOLS[each.protocol]
    for variant in each.variants:
        if variant not in protocol.variants:
            raise unknown("variant", variant, protocol.variants, each.protocol)
    if each.metric not in protocol.metrics:
        raise unknown("metric", each.metric, protocol.metrics, each.protocol)
    if math.isnan(each.value) and math.isnan(each.delta):
        raise ValueError("neither a value nor a difference")
    if not (math.isnan(each.value) or 0 <= each.value <= 100):
        raise ValueError(f"'value' is {each.value}, not per cent")
    if each.suspect and not each.notes:
        raise ValueError("suspect, but no note says why")
