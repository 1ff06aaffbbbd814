"""The verb: arguments, their checks, one picture after the other."""

import inspect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from densessl.core import install, log
from densessl.core.errors import EnvironmentLacks, InputError, unknown
from densessl.core.options import argument
from densessl.core.parser import Parser
from densessl.core.progress import track

from ..images_argument import add_frame_rate, source_from
from .methods import CHOICES, CLASSES, JIGSAW, chosen

if TYPE_CHECKING:
    from ..views import ImageSource

FORMATS = ("png", "svg", "pdf")
LEAST_SIZE, MOST_SIZE = 32, 1024  # pixels, the side of a view
LEAST_DPI, MOST_DPI = 30, 300
SHEET_ROWS = 40
SHEET = "sheet"


def main(argv: list[str]) -> int:
    """Draw two views of every image, and what a method compares in them.

    'setsim': attention, salient sets, nearest neighbours and geometry. 'houghcl': Hough voting,
    with the most and the least confident matches. 'densecl': nearest neighbours. 'pixpro': the
    positions that geometry pairs; 'vader': points. 'resim': the same windows in both views.
    'scfs': where local crops find themselves. 'jigsaw': where the four parts of view 1 do, of
    several networks beside each other. 'classes': class probabilities of both views, of a local
    crop and of what it finds in view 1, by the vote of the nearest images of --train (the paper:
    by its trained classifier). 'auto' takes what fits the checkpoint's method.
    """
    args = _parser().parse_args(argv)
    _check(args)
    _require_matplotlib()
    log.setup()
    jobs = _jobs(images_of(args.images, args.limit, args.frame_rate), args)
    from .by_classes import voters_of
    from .checkpoint import load
    from .look import look_at
    from .picture import draw_picture, draw_sheet

    model = load(args.checkpoint)
    level = args.level or list(model.backbone.channels)[-1]
    if level not in model.backbone.channels:
        raise unknown("level", level, model.backbone.channels, "--level")
    beside = tuple(load(each) for each in args.beside)
    for other in beside:
        if level not in other.backbone.channels:
            raise unknown("level", level, other.backbone.channels, f"--beside {other.name}")
    methods = chosen(args.method, model.method)
    voters = voters_of(model, level, args) if args.method == CLASSES else None

    def look(job: PictureJob):
        how = (args.size, args.seed, level, methods, beside, voters)
        return look_at(model, job.image.path, *how, source=job.image.source)

    if args.sheet:
        looks = [look(job) for job in track(jobs, "images")]
        draw_sheet(looks, methods, jobs[0].out, args.format, args.dpi)
    else:
        for job in track(jobs, "pictures"):
            draw_picture(look(job), methods, job.out, args.format, args.dpi)
    number = f"{len(jobs)} picture{'s' if len(jobs) > 1 else ''}"
    written = f"{jobs[0].out}" if args.sheet else f"{number} to {args.output}"
    logging.getLogger("densessl").info("wrote %s (%s)", written, ", ".join(methods))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="densessl show", description=inspect.getdoc(main))
    parser.add_argument(
        "checkpoint", metavar="CKPT", help="of densessl pretrain, or any that convert takes"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image, or a folder of them")
    add_frame_rate(parser)
    parser.add_argument("-o", "--output", default="pictures", metavar="DIR")
    parser.add_argument("--method", default="auto", help=", ".join(CHOICES))
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="CKPT",
        help="other checkpoints, a row each (--method jigsaw)",
    )
    parser.add_argument(
        "--train",
        metavar="DIR",
        help="a folder of images for each class: they vote (--method classes)",
    )
    parser.add_argument(
        "--train-limit",
        type=argument(">= 1"),
        default=20,
        help="at most so many images of a class vote (default: 20)",
    )
    parser.add_argument("--level", help="whose features, as layer3 or block8 (default: the last)")
    parser.add_argument(
        "--size",
        type=argument(f">= {LEAST_SIZE}, <= {MOST_SIZE}"),
        help="side of a view in pixels (default: as in the pretraining)",
    )
    parser.add_argument("--seed", type=argument(">= 0"), default=0, help="of the views")
    parser.add_argument(
        "--sheet", action="store_true", help="one picture of all images, a row each, instead"
    )
    parser.add_argument("--format", default="png", help=", ".join(FORMATS))
    parser.add_argument(
        "--dpi",
        type=argument(f">= {LEAST_DPI}, <= {MOST_DPI}"),
        help="dots an inch, of 13 (default: 110, of a sheet 80)",
    )
    parser.add_argument(
        "--limit",
        type=argument(">= 1"),
        default=24,
        help="at most so many images of a folder, by name, or frames of a video",
    )
    return parser


def _check(args) -> None:
    if args.method not in CHOICES:
        raise unknown("method", args.method, CHOICES, "--method")
    if args.beside and args.method != JIGSAW:
        raise InputError(f"--beside is for --method {JIGSAW}, and --method is '{args.method}'")
    if args.method == CLASSES and not args.train:
        raise InputError(
            f"--method {CLASSES} needs --train DIR: a folder that holds a folder of images for "
            "each class"
        )
    if args.train and args.method != CLASSES:
        raise InputError(f"--train is for --method {CLASSES}, and --method is '{args.method}'")
    if args.train and not Path(args.train).is_dir():
        raise InputError(f"--train: {args.train} is no folder")
    if args.train and Path(args.output).resolve().is_relative_to(Path(args.train).resolve()):
        raise InputError(f"-o {args.output} lies in --train {args.train}; give another folder")
    if args.format not in FORMATS:
        raise unknown("format", args.format, FORMATS, "--format")
    if Path(args.output).exists() and not Path(args.output).is_dir():
        raise InputError(f"-o {args.output} is a file; give a folder for the pictures")


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise EnvironmentLacks(
            "matplotlib is not installed, and pictures need it; fix it with: "
            f"{install.command('transfer')}"
        ) from None


# ----------------------------------------------------------------------------------------- images


class ShownImage(NamedTuple):
    """An image by its file (of a frame: its name), and the source that has it alone."""

    path: Path
    source: "ImageSource"


def images_of(paths: list[str], limit: int, frame_rate: float = 0.0) -> list[ShownImage]:
    """The readable images that the arguments name: a folder stands for its first ``limit``, and a
    video for the first of its frames at ``frame_rate``.

    Those of a folder come sorted by name, without those of folders below it. Raises InputError for
    what is not there, is no image, or is a folder without one.
    """
    from densessl.decoding import is_video

    images: list[ShownImage] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = _of_folder(path, limit, bool(frame_rate))
        elif path.is_file():
            found = [path]
        else:
            raise InputError(f"{path}: no such image or folder of images")
        for each in found:
            if is_video(each.name):
                images += _frames(each, limit, frame_rate)
            else:
                images.append(ShownImage(each, _source(each)))
    for image in images:
        _require_readable(image)
    return images


def _source(image: Path) -> "ImageSource":
    from ..views import ImageSource

    return ImageSource(image.parent, [image.name], str(image))


def _frames(video: Path, limit: int, rate: float) -> list[ShownImage]:
    """The first frames of a video; their paths are names."""
    from ..views.sources import OneImage

    source = source_from({"SOURCE": "folder", "PATH": str(video), "FRAME_RATE": rate})
    parts = [OneImage(source, index) for index in range(min(len(source), limit))]
    return [ShownImage(Path(part.path(0)), part) for part in parts]


def _of_folder(folder: Path, limit: int, with_videos: bool) -> list[Path]:
    from densessl.decoding import SUFFIXES, is_image, is_video

    found = sorted(
        path
        for path in folder.iterdir()
        if (is_image(path.name) or (with_videos and is_video(path.name))) and path.is_file()
    )
    if not found:
        raise InputError(f"{folder} has no images itself ({', '.join(SUFFIXES[:4])}, … files)")
    if len(found) > limit:
        message = "%s: the first %d of its %d images (--limit %d)"
        logging.getLogger("densessl").info(message, folder, limit, len(found), limit)
    return found[:limit]


def _require_readable(image: ShownImage) -> None:
    from densessl.decoding import UnreadableImage, decode

    try:
        decode(image.source.open(0))
    except (UnreadableImage, OSError) as error:
        raise InputError(f"{image.path} cannot be read as an image: {error}") from None


@dataclass(frozen=True)
class PictureJob:
    """An image, and the picture that it goes into."""

    image: ShownImage
    out: Path


def _jobs(images: list[ShownImage], args) -> list[PictureJob]:
    """Every image with its picture: its stem, numbered where another image has it already."""
    folder = Path(args.output)
    if args.sheet and len(images) > SHEET_ROWS:
        raise InputError(
            f"--sheet of {len(images)} images; a sheet has at most {SHEET_ROWS} rows: give fewer "
            f"images, or a folder with --limit {SHEET_ROWS}"
        )
    jobs: list[PictureJob] = []
    for number, image in enumerate(images):
        taken = {job.out.name for job in jobs}
        stem = SHEET if args.sheet else _stem(image.path)
        name = f"{stem}.{args.format}"
        while name in taken and not args.sheet:
            stem = f"{stem}_{number}"
            name = f"{stem}.{args.format}"
        jobs.append(PictureJob(image, folder / name))
    sources = {image.path.resolve() for image in images} | {Path(args.checkpoint).resolve()}
    for job in jobs:
        if job.out.resolve() in sources:
            raise InputError(f"-o {folder}: the picture {job.out} would replace what it is made of")
    return jobs


def _stem(image: Path) -> str:
    """Of a frame with its number: ``drive_250``."""
    from densessl.decoding.frames import FRAGMENT

    name, is_frame, number = image.name.partition(FRAGMENT)
    return f"{Path(name).stem}_{number}" if is_frame else image.stem
