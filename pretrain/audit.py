"""``densessl audit PATH``: what pretraining will find in a folder of images, before it starts."""

import inspect
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from densessl.core import log
from densessl.core.files import write_json
from densessl.core.limits import cores
from densessl.core.names import readable
from densessl.core.options import argument
from densessl.core.parser import Parser
from densessl.core.units import byte_size
from densessl.decoding import describe, describe_left_out, find_range, parse, sample

from .images_argument import add_images, require_writable, show, source_of

BAR = 30  # columns of the longest bar
NAMED = 5  # files that the terminal names; the JSON has all
EPILOG = """
Every image is decoded as pretraining decodes it. No image is changed; shards get
an index beside them, which pretraining needs too. The exit code is 0, whatever is
found, and 2 where there are no images.
"""


def main(argv: list[str]) -> int:
    """Decode every image of a data set, and say what is there.

    Numbers, bytes, formats, colour modes and sizes; files that cannot be read,
    images that are there twice, too small to crop well or nearly one colour; which
    values become black and white; and how many steps an epoch of pretraining takes.
    """
    args = _parser().parse_args(argv)
    if args.output is not None:
        require_writable(Path(args.output), (".json",))
    log.setup()
    from .audit_images import inspect_all, summary

    source = source_of(args)
    bounds = parse(args.range, "--range")
    files = [partial(source.open, index) for index in sample(len(source), source.name)]
    sampled = find_range(files)
    suggested = list(sampled.range) if sampled else None
    bounds = bounds or (sampled.range if sampled else None)
    found = inspect_all(source, args.workers, bounds)
    audit = {
        "schema": 1,
        "source": args.source,
        "path": args.path,
        "classes": args.classes,
        "annotations": args.annotations,
        "images_sha256": source.fingerprint(),
        "left_out": dict(source.left_out),
        "range": {"used": list(bounds) if bounds else None, "auto": suggested},
        **summary([source.name(index) for index in range(len(source))], found),
    }
    show(report(audit))
    if args.output is not None:
        write_json(args.output, audit)
        logging.getLogger("densessl").info("wrote %s", args.output)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="densessl audit", description=inspect.getdoc(main), epilog=EPILOG)
    add_images(parser)
    parser.add_argument("--range", default="auto", help="as DATA.RANGE: auto, or LOW,HIGH")
    parser.add_argument(
        "--workers", type=argument(">= 1"), default=cores(), metavar="N", help="processes"
    )
    parser.add_argument("-o", "--output", metavar="FILE.json", help="write all of it there")
    return parser


def report(audit: dict) -> Iterator[Table | Text]:
    """An audit as people read it: a table of numbers, a histogram, and what deserves a look."""
    yield _numbers(audit)
    if audit["readable"]:
        yield _histogram(audit["short_side"]["histogram"])
    yield from _remarks(audit)


def _numbers(audit: dict) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    total, batch = audit["images"], audit["batch_size"]
    rows = {"images": f"{total:,}, {byte_size(audit['bytes'])}"}
    for name in ("formats", "modes"):
        counts = (f"{kind} {count:,}" for kind, count in audit[name].items())
        rows[name] = ", ".join(counts) or "none"
    for name in ("width", "height", "short_side"):
        spread = audit[name]
        if spread["min"] is not None:
            rows[name.replace("_", " ")] = (
                f"{spread['min']} to {spread['max']} px, median {spread['median']:g}"
            )
    if audit["depth"]["images"]:
        rows["depth"] = _describe_depth(audit)
    steps = audit["steps_per_epoch"]
    rows["an epoch"] = (
        f"{steps:,} step{'s' if steps > 1 else ''} of {batch} images"
        if steps
        else f"fewer than a step of {batch} images: lower SOLVER.BATCH_SIZE"
    )
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _describe_depth(audit: dict) -> str:
    """'40 images not of 8 bits, values 7235 to 8772: 7247,8764 become black and white'."""
    depth, used, auto = audit["depth"], audit["range"]["used"], audit["range"]["auto"]
    each = "each by its own values" if used is None else f"{describe(used)} become black and white"
    how = "" if used is None else " (DATA.RANGE auto)" if used == auto else " (--range)"
    values = f"values {depth['least']:g} to {depth['greatest']:g}"
    return f"{depth['images']:,} images not of 8 bits, {values}: {each}{how}"


def _histogram(bins: list[dict]) -> Table:
    """The short sides, from the first to the last bin that is not empty."""
    filled = [number for number, each in enumerate(bins) if each["images"]]
    most = max(each["images"] for each in bins)
    table = Table(box=None, pad_edge=False)
    table.add_column("short side, px", justify="right")
    table.add_column("images", justify="right")
    table.add_column()
    for each in bins[filled[0] : filled[-1] + 1]:
        last = f"to {each['below'] - 1}" if each["below"] else "and more"
        length = -(-BAR * each["images"] // most)
        table.add_row(f"{each['from']} {last}", f"{each['images']:,}", "█" * length)
    return table


def _remarks(audit: dict) -> Iterator[Text]:
    """What cannot be read, what is small, what is there twice: the first of each by name."""
    bad, limit = audit["unreadable"], audit["max_unreadable"]
    if bad["images"]:
        share = bad["images"] / audit["images"]
        fate = (
            f"pretraining puts other images in their place, up to DATA.MAX_UNREADABLE {limit:g}"
            if share <= limit
            else f"more than DATA.MAX_UNREADABLE {limit:g}: pretraining would stop"
        )
        files = [f"{each['name']}: {each['reason']}" for each in bad["files"]]
        yield _remark(f"{bad['images']:,} cannot be read ({share:.2%}); {fate}", files)
    if small := audit["below"]["images"]:
        side = audit["below"]["side"]
        yield _remark(f"{small:,} with a side below {side} px", audit["below"]["files"])
    if flat := audit["one_colour"]["images"]:
        yield _remark(_describe_flat(audit, flat), audit["one_colour"]["files"])
    if audit["left_out"]:
        yield _remark(describe_left_out(audit["left_out"]), [])
    if copies := audit["duplicates"]["images"]:
        files = [" = ".join(group) for group in audit["duplicates"]["files"]]
        yield _remark(f"{copies:,} with the same bytes as another image", files)


def _describe_flat(audit: dict, flat: int) -> str:
    line = f"{flat:,} of {audit['readable']:,} images nearly one colour"
    line += f" (less than {audit['one_colour']['levels']} of 255 levels apart)"
    depth, used, auto = audit["depth"], audit["range"]["used"], audit["range"]["auto"]
    if not depth["images"] or used is None:
        return line
    line += (
        f": values {depth['least']:g} to {depth['greatest']:g}, of which {describe(used)} become "
    )
    line += "black and white"
    return line if used == auto else f"{line}; DATA.RANGE auto would take {describe(auto)}"


def _remark(line: str, files: list[str]) -> Text:
    rest = len(files) - NAMED
    shown = files[:NAMED] + ([f"and {rest:,} more"] if rest > 0 else [])
    # A name on disk may be no UTF-8, and hold a line feed.
    return Text.assemble((line, "yellow"), *(f"\n  {readable(each)}" for each in shown))
