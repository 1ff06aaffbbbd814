"""``densessl compare A B``: is B better than A, as far as their trials tell?"""

import logging
import os
import sys
from pathlib import Path

from densessl.core import log
from densessl.core.errors import InputError
from densessl.core.files import write_text
from densessl.core.parser import Parser

from ..results import Record, collect
from .comparison import compare
from .render import FORMATS

logger = logging.getLogger("densessl")

SUFFIXES = {".txt": "terminal", ".md": "md", ".json": "json"}

DESCRIPTION = """\
Compare two methods or two models by their trials of one protocol: B − A with its 95 % interval, a t
test, Cohen's effect, and what that means in words. A and B are folders of trials, as 'densessl
transfer' writes them, or several (a:b). With several pretrainings of a method (of different SEEDs)
the unit is the pretraining, and the test Welch's; between two single pretrained models it is the
trial, paired where the trials share seeds.
"""


def main(argv: list[str]) -> int:
    """Run the verb; returns the exit code. Raises InputError for what is wrong with ``argv``."""
    args = _parser().parse_args(argv)
    if not logger.handlers:  # a caller's log stays where it is
        log.setup()
    form = args.format or _format(args.output)
    found = compare(
        (args.a, args.b),
        (_records(args.a), _records(args.b)),
        args.protocol,
        args.variant,
        args.metric,
    )
    text = FORMATS[form](found)
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
        logger.info("wrote %s", args.output)
    return 0


def _format(output: str | None) -> str:
    """What the file's suffix means, or what suits the screen."""
    if output is None:
        return "terminal" if sys.stdout.isatty() else "md"
    suffix = Path(output).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"-o {output}: '{suffix}' names no format. Allowed: {', '.join(SUFFIXES)}, or any with "
            "--format"
        )
    return SUFFIXES[suffix]


def _records(folder: str) -> list[Record]:
    """The records of a folder, or of several (a:b); damaged and foreign files are named."""
    places = [folder] if Path(folder).exists() else folder.split(os.pathsep)
    records = collect(places, lambda error: logger.warning("skipped: %s", error))
    if not records:
        raise InputError(
            f"no trial_<k>/result.json in or below {folder}; 'densessl transfer WEIGHTS --protocol "
            "NAME --trials 5 -o DIR' writes them"
        )
    return records


def _parser() -> Parser:
    parser = Parser(prog="densessl compare", description=DESCRIPTION)
    parser.add_argument("a", metavar="A", help="folder of trials: what is compared with")
    parser.add_argument("b", metavar="B", help="folder of trials: what is compared")
    parser.add_argument("--protocol", metavar="NAME", help="where both have several")
    parser.add_argument("--variant", metavar="NAME", help="where both have several")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="the first has the verdict; repeat it for more (default: the protocol's)",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="default: by the suffix of -o; terminal on a terminal, else md",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to the screen")
    return parser
