"""``densessl audit PATH``: what pretraining will find in a folder of images, before it starts."""

import inspect
import logging
from functools import partial
from pathlib import Path

from densessl.core import log
from densessl.core.files import write_json
from densessl.core.limits import cores
from densessl.core.options import argument
from densessl.core.parser import Parser

from .images_argument import add_images, require_writable, show, source_of

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
    from densessl.decoding import find_range, parse, sample

    from .audit_images import inspect_all, summary
    from .audit_report import report
    from .views.tiles import TiledSource
    from .views.videos import VideoSource

    source = source_of(args)
    bounds = parse(args.range, "--range")
    files = [partial(source.sample, index) for index in sample(len(source), source.name)]
    sampled = find_range(files)
    suggested = list(sampled.range) if sampled else None
    bounds = bounds or (sampled.range if sampled else None)
    whole = source.whole if isinstance(source, TiledSource) else source
    found = inspect_all(whole, args.workers, bounds, args.tile)
    audit = {
        "schema": 1,
        "source": args.source,
        "path": args.path,
        "classes": args.classes,
        "annotations": args.annotations,
        "images_sha256": source.fingerprint(),
        "left_out": dict(source.left_out),
        "range": {"used": list(bounds) if bounds else None, "auto": suggested},
        "tile": args.tile,
        "videos": {"rate": whole.rate, "videos": whole.videos, "frames": whole.frames}
        if isinstance(whole, VideoSource)
        else None,
        "samples": len(source),
        **summary(whole.name, found, len(source)),
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
