"""What ``densessl audit`` prints."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from densessl.core.names import readable
from densessl.core.units import byte_size
from densessl.decoding import describe, describe_left_out

from .images_argument import in_words_of_the_verb

BAR = 30  # columns of the longest bar
NAMED = 5  # files that the terminal names; the JSON has all


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
    if videos := audit["videos"]:
        rows["videos"] = (
            f"{videos['videos']:,}, of which {videos['frames']:,} frames are images "
            f"({videos['rate']:g} a second)"
        )
    if audit["tile"]:
        rows["tiles"] = f"{audit['samples']:,} of {audit['tile']} px (an image that fits is one)"
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
        yield _remark(in_words_of_the_verb(describe_left_out(audit["left_out"])), [])
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
