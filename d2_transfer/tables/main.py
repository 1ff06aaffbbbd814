"""``densessl table [DIR…]``: paper-style tables of trials, and of the papers themselves."""

import logging
import sys
from dataclasses import replace
from pathlib import Path

from densessl.core import log, output
from densessl.core.errors import InputError
from densessl.core.parser import Parser
from densessl.core.units import many

from ..results import Record, found_in
from . import from_paper, from_records, layouts, per_class, render
from .model import Table

logger = logging.getLogger("densessl")

DESCRIPTION = """\
Print the tables of all trial records in and below the folders, or write them to a file.
With --paper, a results table of a paper in its own layout: the published numbers, marked as such,
and ours beside them where records exist; without folders the published numbers alone.
"""


def main(argv: list[str]) -> int:
    """Run the verb; returns the exit code. Raises InputError for what is wrong with ``argv``."""
    args = _parser().parse_args(argv)
    if args.list_papers:
        sys.stdout.write(listing())
        return 0
    if not logger.handlers:  # a caller's log stays where it is
        log.setup()
    form = output.form(args, render.SUFFIXES)
    tables = _paper(args) if args.paper else _records(args, form)
    if form == "terminal" and args.output is None and sys.stdout.isatty():
        from rich.console import Console

        from .render import terminal

        text = terminal.render(tables, Console())
    else:
        text = render.FORMATS[form](tables)
    output.give(args, text)
    return 0


def listing() -> str:
    """A line for each table of a paper: its name and its title."""
    width = max(map(len, layouts.names()))
    return "".join(f"{name:{width}s}  {layouts.find(name).title}\n" for name in layouts.names())


def _records(args, form: str) -> list[Table]:
    if not args.dirs:
        raise InputError(
            "no folder is named: densessl table DIR…; or a paper's table: --paper NAME, see "
            "--list-papers"
        )
    if args.variant:
        raise InputError(f"--variant {args.variant} is for --paper; records have a table each")
    if args.per_class and args.metric:
        raise InputError(f"--metric {args.metric[0]} names a column; --per-class has its own")
    records = _labelled(found_in(args.dirs), args.label)
    if not args.per_class:
        return from_records.build(records, args.metric, args.baseline)
    tables = per_class.build(records, args.baseline)
    if not tables:
        raise InputError(
            "no record has the AP or IoU of single classes: those of classification have none, nor "
            "those of older versions; 'densessl transfer MODEL --eval-only' measures them"
        )
    return tables if form == "csv" else [per_class.turned(table) for table in tables]


def _paper(args) -> list[Table]:
    for option in ("metric", "baseline", "label"):
        if getattr(args, option):
            raise InputError(f"--{option} is for tables of records; --paper has its own")
    if args.per_class:
        raise InputError("--per-class is for tables of records; no paper's table has classes")
    layout = layouts.find(args.paper, args.variant)
    records = found_in(args.dirs) if args.dirs else []
    table, placed = from_paper.build(layout, records)
    for message in placed.messages:
        logger.warning("%s", message)
    for protocol, count in placed.elsewhere.items():
        logger.info("%s of %s left out, no part of %s", many(count, "record"), protocol, args.paper)
    if records and not any(row.measured for row in table.rows):
        logger.warning("no record belongs to %s: the published numbers alone", args.paper)
    return [table]


def _labelled(records: list[Record], labels: list[str]) -> list[Record]:
    """The records with what ``--label DIR=NAME`` calls the trials below DIR."""
    named = {}
    for label in labels:
        folder, equals, name = label.rpartition("=")
        if not equals or not folder or not name:
            raise InputError(f"--label is '{label}'; allowed: DIR=NAME")
        named[Path(folder).resolve()] = name
    unused, order = set(named), {folder: place for place, folder in enumerate(named)}
    for index, record in enumerate(records if named else ()):
        if record.folder is None:
            continue
        at = record.folder.resolve()
        if above := named.keys() & {at, *at.parents}:
            last = max(above, key=order.__getitem__)  # of labels that hold for it
            records[index] = replace(record, method=named[last])
            unused -= above
    for path in sorted(unused):
        logger.warning("--label: there is no record below %s", path)
    return records


def _parser() -> Parser:
    parser = Parser(prog="densessl table", description=DESCRIPTION)
    parser.add_argument("dirs", nargs="*", metavar="DIR", help="folders that hold trials")
    parser.add_argument("--paper", metavar="NAME", help="a paper's table, e.g. setsim/table4")
    parser.add_argument("--list-papers", action="store_true", help="print their names, and stop")
    parser.add_argument(
        "--variant", metavar="NAME", help="with --paper: our trials' variant of its protocols"
    )
    parser.add_argument("--baseline", metavar="METHOD", help="show the differences from this one")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="DIR=NAME",
        help="call the trials below DIR so, instead of by their method; repeat it for more",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="a column, e.g. bbox/AP; repeat it for more (default: what papers print)",
    )
    parser.add_argument(
        "--per-class", action="store_true", help="the AP or IoU of each class, a row each"
    )
    output.add(parser, render.FORMATS)
    return parser
