"""``densessl advise PATH``: what to pretrain with on a folder of images, and why."""

import inspect
import logging
import os
import statistics
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from densessl.core import log, waiting
from densessl.core.errors import InputError
from densessl.core.files import write_text
from densessl.core.limits import cores
from densessl.core.options import argument
from densessl.core.parser import Parser
from densessl.core.waiting import TIMEOUT

from .images_argument import add_images, data_of, require_writable, show, source_of

if TYPE_CHECKING:
    from .advise_model import Advice, ImageStats, Machine
    from .advise_trial import Trial
    from .views import ImageSource

SAMPLED = 64  # images whose headers are read
GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}  # modes without colour
EPILOG = """
The advice is for the number of images and their size; no image is decoded for it but those
of the trial, a few steps that say how fast this machine is (--no-trial leaves it out).
Any built-in config, or a file of yours, is fitted with --config NAME, e.g. moco_v2.
"""


def main(argv: list[str]) -> int:
    """Say what to pretrain with on a folder of images: method, batch, queue, length, and why.

    Prints a table of options with the reason and source of each, what the run
    would cost on this machine (measured), and the command to copy; with -o, writes a config file
    that 'densessl pretrain --config' takes.
    """
    args = _parser().parse_args(argv)
    _check(args)
    log.setup()
    from rich.text import Text

    from . import config
    from .advise_report import as_file, command, report
    from .advise_rules import FEWEST, advise

    if args.config:
        config.find(args.config)
    source = source_of(args)
    if len(source) < FEWEST:
        raise InputError(f"{source.where} has {len(source)} images; advice begins at {FEWEST}")
    images, machine = look(source), machine_of(args.gpus)
    _check_time(args, machine)
    advice = advise(images, machine, args.config)
    _name_data(advice, args)
    config.validate(advice.cfg, advice.processes)
    trial = None
    if not args.no_trial:
        trial = _try(advice, source)
        if args.time:
            steps = int(args.time * 3600 * trial.images_per_second * advice.processes)
            steps = max(steps // advice.cfg.SOLVER.BATCH_SIZE, 1)
            advice = advise(images, machine, args.config, most_steps=steps)
            _name_data(advice, args)
    show((*report(advice, images, machine, trial), Text(command(advice))))
    if args.output is not None:
        write_text(args.output, as_file(advice, args.output))
        logging.getLogger("densessl").info("wrote %s", args.output)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="densessl advise", description=inspect.getdoc(main), epilog=EPILOG)
    add_images(parser)
    parser.add_argument(
        "--gpus",
        type=argument(">= 0"),
        metavar="N",
        help="those that train (0: the CPU); those here if not",
    )
    parser.add_argument("--config", default="", metavar="NAME", help="fit this one instead")
    parser.add_argument(
        "--time", type=argument("> 0", float), metavar="HOURS", help="of the whole run, at most"
    )
    parser.add_argument("--no-trial", action="store_true", help="run no step here")
    parser.add_argument("-o", "--output", metavar="FILE.yaml", help="write a config file there")
    return parser


def _check(args: Namespace) -> None:
    if args.time and args.no_trial:
        raise InputError("--time takes the speed that a trial measures; leave --no-trial out")
    if args.output is not None:
        file = Path(args.output)
        require_writable(file, (".yaml", ".yml"))
        if file.exists():
            raise InputError(f"--output {file} is there already; give another name")


def _check_time(args: Namespace, machine: "Machine") -> None:
    import torch

    if args.time and machine.gpus and not torch.cuda.is_available():
        raise InputError(
            f"--time: the trial runs here, where there is no GPU, and says nothing of {args.gpus} "
            "GPUs; ask on the machine that will train, or leave --time out"
        )


def look(source: "ImageSource") -> "ImageStats":
    """The number of images; of a sample, spread evenly, the size and whether they have colours.

    Headers are read, no image is decoded. InputError where none of the sample can be read.
    """
    from densessl.decoding import Region, UnreadableImage, opened, reasons

    from .advise_model import ImageStats

    count = min(len(source), SAMPLED)
    sides, grey, reason = [], 0, ""
    late = UnreadableImage(f"it could not be read within {TIMEOUT:g} s")
    for place in range(count):
        index = place * len(source) // count
        try:
            with waiting.wait(TIMEOUT, lambda: late):
                with reasons():
                    file, part = source.open(index), source.sample(index)
                with opened(file) as image:
                    sides.append(min(part.size if isinstance(part, Region) else image.size))
                    grey += image.mode in GREY
        except UnreadableImage as error:
            reason = reason or f"{source.path(index)}: {error}"
    if not sides:
        raise InputError(f"{source.where}: of {count} sampled images none can be read ({reason})")
    return ImageStats(len(source), float(statistics.median(sides)), grey / len(sides))


def machine_of(gpus: int | None) -> "Machine":
    """The machine that will train: this one, or one with ``gpus`` GPUs."""
    import torch

    from .advise_model import GPU_BYTES, Machine

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    memory = torch.cuda.get_device_properties(0).total_memory if here else GPU_BYTES
    return Machine(here if gpus is None else gpus, memory, cores())


def _name_data(advice: "Advice", args: Namespace) -> None:
    """Complete the config: the data, a folder for the run, and the CPU where that was asked for."""
    for key, value in data_of(args).items():
        advice.cfg.DATA[key] = value
    advice.cfg.OUTPUT_DIR = os.path.join("output", Path(advice.name).stem)
    if args.gpus == 0:
        advice.choose("DEVICE", "cpu", "--gpus 0", "yours")


def _try(advice: "Advice", source: "ImageSource") -> "Trial":
    from .advise_trial import SECONDS, measure

    logging.getLogger("densessl").info(
        "a trial of a few steps, about %g s (Ctrl-C ends it, --no-trial leaves it out)", SECONDS
    )
    share = advice.cfg.SOLVER.BATCH_SIZE // advice.processes
    return measure(advice.cfg, source, share)
