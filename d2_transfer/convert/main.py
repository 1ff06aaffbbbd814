"""``densessl convert CKPT -o OUT``: a checkpoint to weights, proved by running both networks."""

from console import log
from console.parser import Parser


def main(argv: list[str]) -> int:
    from . import conversion
    from .layouts import BRANCHES, LAYOUTS

    known = ", ".join(f"{row.name} ({row.of})" for row in LAYOUTS)
    endings = ", ".join(f"{name} ({' '.join(ends)})" for name, ends in conversion.TARGETS.items())
    branches = ", ".join("|".join(side) for side in BRANCHES)
    parser = Parser(prog="densessl convert", description=__doc__)
    parser.add_argument("checkpoint", help="the checkpoint file")
    parser.add_argument("-o", "--out", required=True, help="the weights file to write")
    parser.add_argument(
        "--from",
        dest="source",
        default="auto",
        help=f"layout: auto, CONTAINER:PREFIX (state_dict:module.net.), {known}",
    )
    parser.add_argument(
        "--to",
        dest="target",
        default="auto",
        help=f"{endings}; auto: by OUT's ending, .pth of a ResNet torchvision, of a ViT timm",
    )
    parser.add_argument(
        "--branch",
        help=f"of a file with two networks: {branches} (the trained one, its average)",
    )
    parser.add_argument("--method", help="the method's name, where the layout cannot tell it")
    parser.add_argument("--force", action="store_true", help="replace an existing, different OUT")
    arguments = parser.parse_args(argv)
    log.setup()
    print(conversion.convert(**vars(arguments)))
    return 0
