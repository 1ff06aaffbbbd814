"""What verbs that are asked about images share: their arguments, and how they print a report."""

from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.core.files import standing
from densessl.core.options import argument
from densessl.core.parser import Parser

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from .views import ImageSource

FLAGS = {"DATA.PATH": "PATH", "DATA.SOURCE": "--source", "DATA.CLASSES": "--classes"}
FLAGS |= {"DATA.ANNOTATIONS": "--annotations", "DATA.CACHE": "--cache", "DATA.TILE": "--tile"}
FLAGS |= {"DATA.FRAME_RATE": "--frame-rate", "DATA.WORKERS": "--workers"}


def add_images(parser: Parser) -> None:
    """Give ``parser`` the arguments that :func:`source_of` reads."""
    parser.add_argument(
        "path", metavar="PATH", help="as DATA.PATH: a folder; several as a:b; s3://…"
    )
    parser.add_argument("--source", default="folder", help="folder, list, coco or shards")
    parser.add_argument("--classes", metavar="LIST", help="as DATA.CLASSES, e.g. imagenet100")
    parser.add_argument("--annotations", metavar="JSON", help="of --source coco")
    parser.add_argument("--cache", metavar="DIR", help="as DATA.CACHE: keeps what was fetched")
    parser.add_argument(
        "--tile",
        type=argument(">= 0"),
        default=0,
        metavar="PIXELS",
        help="as DATA.TILE: larger images count as tiles of that side",
    )
    add_frame_rate(parser)


def add_frame_rate(parser: Parser) -> None:
    """Give ``parser`` the argument for videos."""
    parser.add_argument(
        "--frame-rate",
        type=argument(">= 0, <= 1000", float),
        default=0.0,
        metavar="N",
        help="as DATA.FRAME_RATE: of videos N frames a second (0: videos are left out)",
    )


def data_of(args: Namespace) -> dict[str, str | int | float]:
    """The options of DATA that the arguments stand for."""
    data = {"SOURCE": args.source, "PATH": args.path, "TILE": args.tile}
    data |= {"CACHE": args.cache or "", "FRAME_RATE": args.frame_rate}
    return data | {"CLASSES": args.classes or "", "ANNOTATIONS": args.annotations or ""}


def source_of(args: Namespace) -> "ImageSource":
    """The images that the arguments stand for."""
    data = data_of(args)
    if "workers" in args:
        data["WORKERS"] = args.workers
    return source_from(data)


def source_from(data: Mapping[str, str | int | float]) -> "ImageSource":
    """The images as pretraining would find them with these options of DATA; its messages in the
    words of the verb."""
    from fvcore.common.config import CfgNode

    from .views import build_source

    try:
        return build_source(CfgNode({"DATA": dict(data)}))
    except (InputError, EnvironmentLacks) as error:
        raise type(error)(in_words_of_the_verb(str(error))) from None


def in_words_of_the_verb(text: str) -> str:
    """With the flags for the options of pretraining that are named."""
    for option, flag in FLAGS.items():
        text = text.replace(option, flag)
    return text


def show(parts: "Iterable[Table | Text]") -> None:
    """Print a report's parts for people, an empty line before each."""
    from rich.console import Console
    from rich.text import Text

    screen = Console()
    for part in parts:
        screen.print()
        screen.print(part, soft_wrap=isinstance(part, Text))  # paths and words stay in one piece


def require_writable(file: Path, endings: tuple[str, ...]) -> None:
    """InputError for an --output that could not be written; said before the work, not after it."""
    if file.suffix not in endings:
        raise InputError(f"--output {file}: a name that ends in {' or '.join(endings)}")
    if file.is_dir():
        raise InputError(f"--output {file} is a folder; give a file in it")
    try:
        standing(file.absolute().parent)
    except OSError as error:
        raise InputError(
            f"--output {file}: cannot make its folder: {error.filename}: {error.strerror}"
        ) from None
