"""``densessl plot KIND …``: training curves, and the papers' figures from records."""

import argparse
import logging

from densessl.core import log
from densessl.core.errors import InputError, unknown
from densessl.core.options import argument
from densessl.core.parser import Parser

from ..results import found_in
from . import curves, label_efficiency, layers, runs, sweeps
from .drawing import draw
from .model import SPREADS, Plot
from .style import check_format
from .trials import Choice

logger = logging.getLogger("densessl")

KINDS = {
    "curves": "training curves from metrics.jsonl: pretrainings, fine-tunings with their trials",
    "threshold": "AP by the threshold of the salient set, from trial records (SetSim, Figure 3)",
    "layers": "k-NN accuracy by stage of the backbone, from trial records (SCFS, Figure 4)",
    "crops": "k-NN accuracy by number of local crops, from trial records (SCFS, Figure 5)",
    "labels": "a metric by the share of the images that kept their labels, from trial records",
}


def main(argv: list[str]) -> int:
    """Run the verb; returns the exit code. Raises InputError for what is wrong with ``argv``."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    kind, *rest = argv
    if kind not in KINDS:
        raise unknown("plot", kind, KINDS)
    args = _parser(kind).parse_args(rest)
    if not logger.handlers:  # a caller's log stays where it is
        log.setup()
    output = check_format(args.output)
    for label in getattr(args, "label", None) or []:
        if not label.isprintable():
            raise InputError(f"--label {label!r} has characters that cannot be drawn")
    plot = _curves(args) if kind == "curves" else _figure(kind, args)
    draw(plot, output, args.wide)
    logger.info("wrote %s", output)
    return 0


def _usage() -> str:
    lines = "\n".join(f"  {kind:10s} {line}" for kind, line in KINDS.items())
    return (
        f"usage: densessl plot KIND …\n\n{lines}\n\n'densessl plot KIND --help' says more of each."
    )


def _curves(args: argparse.Namespace) -> Plot:
    if args.label and len(args.label) != len(args.runs):
        raise InputError(
            f"--label is given {len(args.label)} times, for {len(args.runs)} RUN; allowed: once "
            "for each, in their order, or not at all"
        )
    if len(set(args.label)) < len(args.label):
        raise InputError(f"--label names two runs alike: {', '.join(args.label)}")
    found = [runs.read(path) for path in args.runs]
    labels = args.label or runs.names([run.path for run in found])
    for run in found:
        for file, lines in run.unreadable.items():
            some = ", ".join(map(str, lines[:5])) + (", …" if len(lines) > 5 else "")
            logger.warning("%s: %d unreadable lines are left out: %s", file, len(lines), some)
    named = list(zip(labels, found, strict=True))
    return curves.build(named, args.metric, args.x, args.smooth, args.spread)


def _figure(kind: str, args: argparse.Namespace) -> Plot:
    choice = Choice(args.protocol, args.variant, args.metric, args.spread)
    for option in ("protocol", "variant", "metric"):
        if not args.dirs and getattr(args, option):
            raise InputError(f"--{option} is for records; name the folders that hold them")
    records = found_in(args.dirs) if args.dirs else []
    if kind == "layers":
        return layers.layers(records, choice, args.k)
    drawn = {
        "threshold": sweeps.threshold,
        "crops": sweeps.crops,
        "labels": label_efficiency.by_labels,
    }
    return drawn[kind](records, choice)


def _parser(kind: str) -> Parser:
    parser = Parser(prog=f"densessl plot {kind}", description=f"Draw {KINDS[kind]}.")
    if kind == "curves":
        parser.add_argument(
            "runs", nargs="+", metavar="RUN", help="folder of a run, or its metrics.jsonl"
        )
        parser.add_argument(
            "--metric",
            action="append",
            default=[],
            metavar="NAME",
            help="one panel each; repeat it for more (default: the loss)",
        )
        parser.add_argument(
            "--label",
            action="append",
            default=[],
            metavar="NAME",
            help="a run's name in the legend, once for each in their order (default: its folder)",
        )
        parser.add_argument("--x", choices=("step", "epoch"), default="step", help="the axis")
        parser.add_argument(
            "--smooth",
            type=argument(">= 1"),
            default=1,
            metavar="N",
            help="mean of the last N points",
        )
    else:
        least = "*" if kind == "threshold" else "+"
        parser.add_argument("dirs", nargs=least, metavar="DIR", help="folders that hold trials")
        parser.add_argument("--protocol", metavar="NAME", help="where there are several")
        parser.add_argument("--variant", metavar="NAME", help="where there are several")
        parser.add_argument("--metric", metavar="NAME", help="default: the protocol's main one")
        if kind == "layers":
            parser.add_argument("--k", type=int, metavar="K", help="neighbours; default: KNN.K")
    parser.add_argument(
        "--spread",
        choices=tuple(SPREADS),
        default="std",
        help="of trials: standard deviation, or minimum to maximum",
    )
    parser.add_argument("--wide", action="store_true", help="a page wide, not a column")
    parser.add_argument(
        "-o", "--output", default=f"{kind}.png", metavar="FILE", help=".png, .svg or .pdf"
    )
    return parser
