"""A paper's table: its published numbers, and our trials beside them where records exist."""

import math
from collections.abc import Sequence
from typing import Any

from ..results import Record
from . import experiments
from .controls import against_controls
from .layouts import PaperRow, TableLayout, column_of
from .matching import PlacedRecords, columns_of, config_names, place
from .model import PublishedCell, Row, Table, compare_with_baseline, mark_best
from .pretrainings import by_recipe, control_of, seeds_of

OTHERS = "Not in the paper"


def build(layout: TableLayout, records: Sequence[Record] = ()) -> tuple[Table, PlacedRecords]:
    """The table, and where the records are: ``messages`` has one for each kind that is left out.

    A row with published numbers stands also where no record is; one without only where records
    are. Records that fit the columns and no row follow in a section of their own. Raises
    InputError for trials of one cell whose configs differ and for a seed that occurs twice.
    """
    placed = place(layout, records)
    rows: list[Row] = []
    for index, paper_row in enumerate(layout.rows):
        numbers = _published(layout, paper_row)
        models = by_recipe(placed.rows.get(index, []))
        remark = placed.remarks.get(index, "")
        rows += _rows(layout, paper_row, numbers, models, remark)
    sections, baselines = list(layout.sections), list(layout.baselines)
    if placed.others:
        rows += _others(layout, placed)
        sections.append(OTHERS)
        baselines.append("")
    table = Table(
        title=f"{layout.cite}: {layout.title}",
        columns=list(layout.columns),
        rows=rows,
        first=layout.first,
        facts=tuple(head for head, _ in layout.facts),
        sections=sections,
        baselines=baselines,
        cite=layout.cite,
        decimals=layout.decimals,
    )
    _compare(table)
    against_controls(table)
    mark_best(table)
    table.notes = [*_notes(table), *table.notes, *_configs(layout, placed), *layout.notes]
    return table, placed


def _published(layout: TableLayout, paper_row: PaperRow) -> dict[str, PublishedCell]:
    """The row's published numbers by column key."""
    cells = {}
    for number in paper_row.numbers:
        if column := column_of(number, layout.columns):
            notes = number.notes
            if number.suspect:
                notes = (f"suspect: {notes[0]}", *notes[1:])
            delta = None if math.isnan(number.delta) else number.delta
            cells[column.key] = PublishedCell(
                number.value, delta, number.suspect, number.variants, notes
            )
    return cells


def _rows(
    layout: TableLayout,
    paper_row: PaperRow,
    numbers: dict[str, PublishedCell],
    models: list[list[Record]],
    remark: str,
) -> list[Row]:
    """The paper's row: alone, or once for each of our models."""
    facts = dict(paper_row.facts)
    epochs = str(paper_row.epochs or "")
    shown: dict[str, Any] = {"facts": facts, "section": paper_row.section, "published": numbers}
    if not models:
        row = Row(paper_row.label, paper_row.method, paper_row.data, epochs, **shown)
        return [row] if numbers else []
    comparable = _comparable(layout, paper_row)
    rows = []
    for nth, trials in enumerate(models):
        which = f" [{experiments.which(trials)}]" if len(models) > 1 else ""
        row = Row(
            paper_row.label + which,
            trials[0].method,
            paper_row.data,
            epochs,
            published_as=paper_row.label,
            repeats=nth > 0,
            notes=(remark,) if remark else (),
            **shown,
        )
        _measure(layout, row, trials)
        for key in comparable & row.cells.keys():
            row.cells[key].compare(numbers[key].mean)
        rows.append(row)
    return rows


def _comparable(layout: TableLayout, paper_row: PaperRow) -> set[str]:
    """The columns whose published number was measured as the column is, and is no suspect."""
    keys = set()
    for number in paper_row.numbers:
        column = column_of(number, layout.columns)
        if column is None or number.suspect or math.isnan(number.value):
            continue
        if column.variant in (number.variants or ("",)):
            keys.add(column.key)
    return keys


def _measure(layout: TableLayout, row: Row, records: list[Record]) -> None:
    """Fill the row's cells with one model's trials, of as many protocols as the table has."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.protocol, record.variant), []).append(record)
    for trials in groups.values():
        experiments.require_one_experiment(trials)
        experiments.require_different_seeds(trials)
        for column in columns_of(layout, trials[0]):
            if found := experiments.cell(trials, column.metric):
                row.cells[column.key] = found
    row.seeds = sorted({record.seed for record in records})
    row.pretrained = seeds_of(records)
    row.control = control_of(records[0])
    row.notes += experiments.remarks(records)


def _others(layout: TableLayout, placed: PlacedRecords) -> list[Row]:
    """Our models that the paper does not have; ranked with its rows where they are one section."""
    rows = []
    models = by_recipe(placed.others)
    names = [_name(trials[0]) for trials in models]
    for name, trials in zip(names, models, strict=True):
        first = trials[0]
        data = str(first.pretrain.get("dataset") or "")
        epochs = experiments.number(first.pretrain.get("epochs"))
        known = {"data": data, "epochs": epochs}
        row = Row(
            f"{name} [{experiments.which(trials)}]" if names.count(name) > 1 else name,
            first.method,
            data,
            epochs,
            facts={head: known.get(fact, "") for head, fact in layout.facts},
            section=len(layout.sections),
            peers=0 if len(layout.sections) == 1 else None,
        )
        _measure(layout, row, trials)
        rows.append(row)
    return rows


def _name(record: Record) -> str:
    """What a model is called that no row of the paper has: its config, or all that is known."""
    if configs := config_names(record.pretrain):
        return configs[0]
    dataset = record.pretrain.get("dataset")
    epochs = experiments.number(record.pretrain.get("epochs"))
    known = [record.method, dataset and str(dataset), epochs and f"{epochs} epochs"]
    return ", ".join(filter(None, known))


def _compare(table: Table) -> None:
    """Our differences from our own trials of each section's baseline."""
    for section, label in enumerate(table.baselines):
        rows = [row for row in table.rows if row.is_among(section)]
        found = [row for row in rows if row.label == label and row.cells]
        if len(found) == 1:
            compare_with_baseline(rows, found[0])


def _notes(table: Table) -> list[str]:
    published = any(row.published for row in table.rows)
    lines = [f"† published ({table.cite}), not measured here; per cent."] if published else []
    ours = [row for row in table.rows if row.measured]
    if ours:
        first, *others = experiments.levels(ours, table.nested)
        lines += [f"Ours: {first}", *others, *experiments.detectable(table)]
    cells = [cell for row in ours for cell in row.cells.values()]
    if any(cell.within is not None for cell in cells):
        lines.append(
            "Ours − published: in or out says whether the published value lies in the 95 % t "
            "interval of our trials' mean."
        )
    if any(_is_apart(row, key) for row in ours for key in row.cells):
        lines.append(
            "No difference is taken to a published number that is suspect or was measured with "
            "another variant, or one that the paper does not name."
        )
    if any(cell.delta is not None for cell in cells) or _printed_deltas(table):
        baselines = " / ".join(dict.fromkeys(filter(None, table.baselines)))
        lines.append(f"In brackets: over {baselines}.")
    return lines + experiments.undefined(ours)


def _is_apart(row: Row, key: str) -> bool:
    """Whether there is a published number beside ours that it is not compared with."""
    beside, ours = row.published.get(key), row.cells[key]
    return bool(beside and not math.isnan(beside.mean) and ours.n and ours.difference is None)


def _printed_deltas(table: Table) -> bool:
    return any(cell.delta is not None for row in table.rows for cell in row.published.values())


def _configs(layout: TableLayout, placed: PlacedRecords) -> list[str]:
    """What differs between the configs of our rows, for each protocol of the table."""
    lines = []
    for key in dict.fromkeys((column.protocol, column.variant) for column in layout.columns):
        firsts = []
        for records in (*(placed.rows[index] for index in sorted(placed.rows)), placed.others):
            trials = [record for record in records if (record.protocol, record.variant) == key]
            firsts += [model[0] for model in by_recipe(trials)]
        if len(firsts) > 1 and (different := experiments.difference(firsts)):
            lines.append(f"{key[0]}: our rows were not fine-tuned under one config: {different}.")
    return lines
