"""``densessl convert CKPT -o OUT``: a checkpoint to weights, proved by running both networks."""

import argparse
import math
from typing import Any

from densessl.core import log
from densessl.core.errors import InputError, unknown
from densessl.core.parser import Parser


def main(argv: list[str]) -> int:
    from densessl.weight_files.layouts import BRANCHES, LAYOUTS

    from . import conversion, hub
    from .report import HUB

    known = ", ".join(f"{row.name} ({row.of})" for row in LAYOUTS)
    endings = ", ".join(f"{name} ({' '.join(ends)})" for name, ends in conversion.TARGETS.items())
    branches = ", ".join("|".join(side) for side in BRANCHES)
    parser = Parser(prog="densessl convert", description=__doc__)
    parser.add_argument("checkpoint", help="the checkpoint file")
    parser.add_argument(
        "-o", "--out", required=True, help="the weights file (--to hub: the folder) to write"
    )
    parser.add_argument(
        "--from",
        dest="source",
        default="auto",
        help=f"layout: auto, CONTAINER:PREFIX (state_dict:module.net.), timm/NAME, {known}",
    )
    parser.add_argument(
        "--to",
        dest="target",
        default="auto",
        help=f"{endings}, hub (a folder with safetensors and a model card, for timm and the "
        "Hugging Face Hub); auto: by OUT's ending, .pth of a ResNet torchvision, of all else timm",
    )
    parser.add_argument("--license", dest="licence", help="of the weights, for --to hub's card")
    parser.add_argument(
        "--results",
        nargs="+",
        metavar="DIR",
        help="for --to hub's card: trials of these weights, whose means it gives",
    )
    parser.add_argument(
        "--branch",
        help=f"of a file with two networks: {branches} (the trained one, its average)",
    )
    parser.add_argument("--method", help="the method's name, where the layout cannot tell it")
    parser.add_argument(
        "--pretrain",
        nargs="+",
        metavar="KEY=VALUE",
        help="what foreign weights were pretrained on, for records and tables: dataset=imagenet "
        "epochs=200; several pretrainings by one method: recipe=NAME seed=1",
    )
    numbers: dict[str, Any] = {"nargs": "+", "type": float, "metavar": "NUMBER"}
    parser.add_argument(
        "--mean",
        **numbers,
        help="of the images that the network wants, of 0-1 or of 0-255 ones, in the order of its "
        "channels (R G B); over what the file says or what is assumed",
    )
    parser.add_argument("--std", **numbers, help="their deviation, in the same units")
    parser.add_argument("--channel-order", metavar="RGB|BGR", help="of the network's images")
    parser.add_argument(
        "--stride-in-1x1",
        action=argparse.BooleanOptionalAction,
        help="the network has its stride in the 1x1 convolutions, as Caffe's (torchvision: 3x3)",
    )
    parser.add_argument(
        "--channels",
        type=int,
        help="of the images, of a network of three: its first layer is made for so many, and gives "
        "the same answer to an image of equal channels",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing, different OUT")
    arguments = parser.parse_args(argv)
    arguments.pretrain = _facts(arguments.pretrain or [])
    log.setup()
    options = vars(arguments)
    licence, records = options.pop("licence"), options.pop("results")
    if arguments.target == HUB:
        del options["target"]
        checkpoint, folder = options.pop("checkpoint"), options.pop("out")
        print(
            hub.write_folder(
                checkpoint, folder, licence=licence or "", records=records or (), **options
            )
        )
        return 0
    if licence or records:
        raise InputError(f"--license and --results are for --to hub, not {arguments.target}")
    print(conversion.convert(**options))
    return 0


def _facts(pairs: list[str]) -> dict[str, str | float]:
    """``["dataset=imagenet", "epochs=200"]`` as facts; InputError for what is none."""
    facts: dict[str, str | float] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value:
            raise InputError(f"--pretrain is '{pair}'; allowed: KEY=VALUE, as dataset=imagenet")
        if key not in PRETRAIN:
            raise unknown("fact", key, PRETRAIN, "--pretrain")
        facts[key] = PRETRAIN[key](pair, value)
    return facts


def _number(pair: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"--pretrain is '{pair}'; allowed: a positive number")
    return int(number) if number.is_integer() else number


def _seed(pair: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise InputError(f"--pretrain is '{pair}'; allowed: a whole number, 0 or more")
    return int(value)


PRETRAIN = {  # the facts that may be given, and how their values are read
    "dataset": lambda pair, value: value,
    "epochs": _number,
    "images": _number,
    "batch_size": _number,
    "recipe": lambda pair, value: value,
    "seed": _seed,
}
