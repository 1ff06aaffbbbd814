"""A text that goes to the screen, or to a file in the form that its suffix names."""

import logging
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import InputError, nearest
from .files import write_text
from .parser import Parser


def add(parser: Parser, forms: Iterable[str]) -> None:
    """Add ``--format`` and ``-o`` to a verb's parser."""
    parser.add_argument(
        "--format",
        choices=tuple(forms),
        help="default: by the suffix of -o; terminal on a terminal, else md",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write there, not to the screen")


def form(args: Namespace, suffixes: Mapping[str, str]) -> str:
    """What ``--format`` names, else what the file's suffix means, else what suits the screen."""
    if args.format:
        return args.format
    if args.output is None:
        return "terminal" if sys.stdout.isatty() else "md"
    suffix = Path(args.output).suffix.lower()
    if suffix not in suffixes:
        near = nearest(suffix, suffixes)
        raise InputError(
            f"-o {args.output}: '{suffix}' names no format.{f' Did you mean {near}?' * bool(near)} "
            f"Allowed: {', '.join(suffixes)}, or any with --format"
        )
    return suffixes[suffix]


def give(args: Namespace, text: str) -> None:
    """Write ``text`` where ``-o`` says, else to standard output."""
    if args.output is None:
        sys.stdout.write(text)
        return
    write_text(args.output, text)
    logging.getLogger("densessl").info("wrote %s", args.output)
