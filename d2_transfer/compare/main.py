"""``densessl compare A B``: is B better than A, as far as their trials tell?"""

import logging
import os
from pathlib import Path

from densessl.core import log, output
from densessl.core.parser import Parser

from ..results import Record, found_in
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
    form = output.form(args, SUFFIXES)
    found = compare(
        (args.a, args.b),
        (_records(args.a), _records(args.b)),
        args.protocol,
        args.variant,
        args.metric,
    )
    output.give(args, FORMATS[form](found))
    return 0


def _records(folder: str) -> list[Record]:
    """The records of a folder, or of several (a:b)."""
    return found_in([folder] if Path(folder).exists() else folder.split(os.pathsep))


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
    output.add(parser, FORMATS)
    return parser
