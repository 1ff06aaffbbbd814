"""``densessl table DIR…``: the paper-style table of the trials in and below the folders."""

import logging
import sys
from pathlib import Path

from rich.console import Console

from console import log
from console.errors import InputError
from console.files import write_text
from console.parser import Parser

from ..results import collect
from . import model, render


def main(argv: list[str]) -> int:
    """Print the tables of all trial records in the folders, or write them to a file."""
    args = _parser().parse_args(argv)
    records = collect(args.dirs)
    if not records:
        places = ", ".join(str(Path(place)) for place in args.dirs)
        raise InputError(
            f"no trial_<k>/result.json in or below {places}. Trials make them: "
            "densessl transfer WEIGHTS --protocol voc_det_c4 --trials 5 -o DIR"
        )
    tables = model.build(records, args.metric, args.baseline)
    to_screen = args.output is None and sys.stdout.isatty()
    if (args.format or ("terminal" if to_screen else "md")) == "md":
        text = render.markdown(tables)
    else:
        console = Console() if to_screen else Console(width=160, no_color=True)
        with console.capture() as captured:
            console.print(render.terminal(tables))
        text = captured.get()
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
        log.setup()
        logging.getLogger("densessl").info("wrote %s", args.output)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="densessl table", description=main.__doc__)
    parser.add_argument("dirs", nargs="+", metavar="DIR", help="folders that hold trials")
    parser.add_argument("--baseline", metavar="METHOD", help="show the differences from this one")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="a column, e.g. bbox/AP; repeat it for more (default: what papers print)",
    )
    parser.add_argument(
        "--format", choices=("md", "terminal"), help="default: terminal on a terminal, else md"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to the screen")
    return parser
