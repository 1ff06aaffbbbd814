"""The tables of a study's page: comparisons, classes, and all means."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from densessl.core.errors import InputError
from densessl.core.units import many

from ..compare.words import points
from ..tables import from_records
from ..tables.model import Column, Row, Table
from ..tables.t_test import p_value
from . import study_numbers, study_words
from .study_data import Study, StudyShare, listed
from .study_numbers import BETTER, UNSEEN, UNTESTED, WORSE, Compared, OfClass, Outcome

STYLES = {BETTER: "good", WORSE: "bad", UNSEEN: "look", UNTESTED: "look"}
CLASSES = 5  # that gain most, and that lose most


def compared(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """The comparisons as a table: a part for each pair, a row for each share."""
    parts: dict[tuple[str, str], list[Compared]] = {}
    for each in found:
        parts.setdefault((each.arm, each.other), []).append(each)
    return [
        {"title": f"{a} against {b}", "runs": _runs(own), "rows": [_row(each) for each in own]}
        for (a, b), own in parts.items()
    ]


def _runs(found: Sequence[Compared]) -> str:
    """Of how many runs the comparisons are; by share where that differs."""
    shares: dict[str, list[StudyShare]] = {}
    for each in found:
        shares.setdefault(study_words.runs(each), []).append(each.share)
    if len(shares) == 1:
        return next(iter(shares))
    return "; ".join(
        f"{listed([share.text for share in own])}: {runs}" for runs, own in shares.items()
    )


def _row(each: Compared) -> dict[str, str]:
    low_high = each.found.interval
    return {
        "share": each.share.text,
        "images": many(each.share.images, "image"),
        "gain": points(each.found.mean, "+"),
        "interval": f"{points(low_high[0])} to {points(low_high[1])}" if low_high else "–",
        "p": p_value(each.p) if each.p is not None else "",
        "state": each.state,
        "style": STYLES[each.state],
    }


def _p(p: float | None) -> str:
    """A p for a column of them."""
    return "–" if p is None else p_value(p).removeprefix("p = ").removeprefix("p ")


def classes(study: Study, arm: str | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The classes that gain most and lose most, where the most labels were measured."""
    if not arm or not outcomes:
        return {}
    share = outcomes[-1].share
    control = study_numbers.better_random(study, share)
    found = study_numbers.by_class(study, arm, control, share) if control else []
    if not control or not found:
        return {}
    gaining = [each for each in found if each.found.mean > 0][:CLASSES]
    losing = [each for each in reversed(found) if each.found.mean < 0][:CLASSES]
    return {
        "about": f"{arm} less {control} with {share.text} of the labels ({share.images} images); "
        f"p corrected by Holm's method for {len(found)} classes.",
        "control": control,
        "arm": arm,
        "groups": [
            (title, [_class(each) for each in own])
            for title, own in (("Gain most", gaining), ("Lose most", losing))
            if own
        ],
    }


def _class(each: OfClass) -> dict[str, str]:
    sure = each.p is not None and each.p <= study_numbers.LEVEL
    return {
        "name": each.name,
        "random": points(each.random),
        "pretrained": points(each.pretrained),
        "gain": points(each.found.mean, "+"),
        "p": _p(each.p),
        "style": ("good" if each.found.mean > 0 else "bad") if sure else "",
    }


def tables(study: Study) -> list[Table]:
    """A table a protocol, with a group of columns a share; the tests stand apart on the page."""
    found = []
    for place, protocol in enumerate(study.protocols):
        parts = [
            (share, table)
            for share in study.shares
            for table in _table(study, share, place, protocol.metric)
        ]
        found += [_joined(parts)] if parts else []
    return found


def _table(study: Study, share: StudyShare, place: int, metric: str) -> list[Table]:
    """None for records that have no average, as a seed is there twice."""
    own = [
        replace(record, config_sha256="")  # what differs is among the page's warnings
        for arm in study.arms
        for record in study.trials(arm.name, share, place)
    ]
    known = dict.fromkeys(name for record in own for name in record.metrics)
    metrics = [name for name in known if name.rpartition("/")[2] in from_records.PRINTED]
    metrics = [metric] * (metric in known) + from_records.printed(metrics)
    try:
        return from_records.build(own, metrics, tested=False)
    except InputError:
        return []


def _joined(parts: Sequence[tuple[StudyShare, Table]]) -> Table:
    """The tables of one protocol's shares side by side."""
    columns: list[Column] = []
    rows: dict[str, Row] = {}
    for share, table in parts:
        for column in table.columns:
            key = f"{share.percent:g} {column.key}"
            columns.append(replace(column, key=key, group=share.text))
            for row in table.rows:
                kept = rows.setdefault(row.label, replace(row, cells={}))
                if column.key in row.cells:
                    kept.cells[key] = row.cells[column.key]
    notes = [note for _, table in parts for note in table.notes if not note.startswith("With ")]
    last = parts[-1][1]
    return replace(
        last,
        title=f"{last.title}, by share of the labels",
        columns=columns,
        rows=[*rows.values()],
        notes=[*dict.fromkeys(notes)],
    )
