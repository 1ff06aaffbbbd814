"""``densessl convert CKPT -o OUT``: a checkpoint to weights, proved by running both networks."""

from console import log
from console.parser import Parser


def main(argv: list[str]) -> int:
    from . import conversion
    from .layouts import LAYOUTS

    known = ", ".join(f"{row.name} ({row.of})" for row in LAYOUTS)
    parser = Parser(prog="densessl convert", description=__doc__)
    parser.add_argument("checkpoint", help="the checkpoint file")
    parser.add_argument("-o", "--out", required=True, help="the weights file to write")
    parser.add_argument("--from", dest="source", default="auto", help=f"layout: auto, {known}")
    parser.add_argument(
        "--to", dest="target", default="detectron2", help=", ".join(conversion.TARGETS)
    )
    parser.add_argument("--method", help="the method's name, where the layout cannot tell it")
    parser.add_argument("--force", action="store_true", help="replace an existing, different OUT")
    arguments = parser.parse_args(argv)
    log.setup()
    print(
        conversion.convert(
            arguments.checkpoint,
            arguments.out,
            arguments.source,
            arguments.target,
            arguments.force,
            arguments.method,
        )
    )
    return 0
