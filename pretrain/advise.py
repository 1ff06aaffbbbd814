"""``densessl advise PATH``: what to pretrain with on a folder of images, and why."""

import logging
import math
import os
import shlex
import shutil
import statistics
import textwrap
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from console import log, waiting
from console.errors import InputError
from console.files import standing, write_text
from console.parser import Parser
from console.progress import duration
from console.units import byte_size
from console.waiting import TIMEOUT
from decoding import UnreadableImage, opened, reasons

from .images_argument import add_images, cores, data_of, require_writable, source_of

if TYPE_CHECKING:
    from .advise_rules import Advice, Images, Machine
    from .advise_trial import Trial
    from .views import ImageSource

SAMPLED = 64  # images whose headers are read
GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}  # modes without colour
WIDTH = 96  # of a comment in a config file
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
    from . import config
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
    screen = Console()
    for part in (*report(advice, images, machine, trial), command(advice, args)):
        whole = {"soft_wrap": True, "markup": False, "highlight": False}  # words stay in one piece
        screen.print()
        screen.print(part, **(whole if isinstance(part, str) else {}))
    if args.output is not None:
        write_text(args.output, as_file(advice, args))
        logging.getLogger("densessl").info("wrote %s", args.output)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="densessl advise", description=main.__doc__.replace("\n    ", "\n"), epilog=EPILOG
    )
    add_images(parser)
    parser.add_argument("--gpus", type=int, metavar="N", help="those that train; those here if not")
    parser.add_argument("--config", default="", metavar="NAME", help="fit this one instead")
    parser.add_argument("--time", type=float, metavar="HOURS", help="of the whole run, at most")
    parser.add_argument("--no-trial", action="store_true", help="run no step here")
    parser.add_argument("-o", "--output", metavar="FILE.yaml", help="write a config file there")
    return parser


def _check(args: Namespace) -> None:
    if args.gpus is not None and args.gpus < 0:
        raise InputError(f"--gpus {args.gpus}: 0 (the CPU) or more")
    if args.time is not None and not (math.isfinite(args.time) and args.time > 0):
        raise InputError(f"--time {args.time}: hours, above 0")
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


def look(source: "ImageSource") -> "Images":
    """The number of images; of a sample, spread evenly, the size and whether they have colours.

    Headers are read, no image is decoded. InputError where none of the sample can be read.
    """
    from .advise_rules import Images

    count = min(len(source), SAMPLED)
    sides, grey, reason = [], 0, ""
    late = UnreadableImage(f"it could not be read within {TIMEOUT:g} s")
    for place in range(count):
        index = place * len(source) // count
        try:
            with waiting.wait(TIMEOUT, lambda: late):
                with reasons():
                    file = source.open(index)
                with opened(file) as image:
                    sides.append(min(image.size))
                    grey += image.mode in GREY
        except UnreadableImage as error:
            reason = reason or f"{source.path(index)}: {error}"
    if not sides:
        raise InputError(f"{source.where}: of {count} sampled images none can be read ({reason})")
    return Images(len(source), float(statistics.median(sides)), grey / len(sides))


def machine_of(gpus: int | None) -> "Machine":
    """The machine that will train: this one, or one with ``gpus`` GPUs."""
    import torch

    from .advise_rules import GPU_BYTES, Machine

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    memory = torch.cuda.get_device_properties(0).total_memory if here else GPU_BYTES
    return Machine(here if gpus is None else gpus, memory, cores())


def _name_data(advice: "Advice", args: Namespace) -> None:
    """Complete the config: the data, a folder for the run, and the CPU where that was asked for."""
    for key, value in data_of(args).items():
        advice.cfg.DATA[key] = value
    advice.cfg.OUTPUT_DIR = os.path.join("output", advice.name)
    if args.gpus == 0:
        advice.choose("DEVICE", "cpu", "--gpus 0", "yours")


def _try(advice: "Advice", source: "ImageSource") -> "Trial":
    from .advise_trial import SECONDS, measure

    logging.getLogger("densessl").info(
        "a trial of a few steps, about %g s (Ctrl-C ends it, --no-trial leaves it out)", SECONDS
    )
    share = advice.cfg.SOLVER.BATCH_SIZE // advice.processes
    return measure(advice.cfg, source, share)


def command(advice: "Advice", args: Namespace) -> str:
    """The command that trains as advised, as one types it."""
    start = ["densessl"]
    if advice.processes > 1:
        start = ["torchrun", "--standalone", "--nproc_per_node", str(advice.processes)]
        start += ["-m", "densessl"]
    words = [*start, "pretrain", "--config", advice.name]
    data = data_of(args)
    for key in ("SOURCE", "PATH", "CLASSES", "ANNOTATIONS"):
        if data[key] and (key, data[key]) != ("SOURCE", "folder"):
            words += [f"DATA.{key}", data[key]]
    words += ["OUTPUT_DIR", advice.cfg.OUTPUT_DIR]
    for choice in advice.choices[1:]:
        words += [choice.option, str(choice.value)]
    return shlex.join(words)


def as_file(advice: "Advice", args: Namespace) -> str:
    """The config as a file: every option that is no default, below the reasons as comments.

    Paths are absolute, so that it can be taken from any folder.
    """
    from . import config

    cfg = advice.cfg.clone()
    cfg.DATA.PATH = _absolute(cfg.DATA.PATH)
    cfg.DATA.ANNOTATIONS = _absolute(cfg.DATA.ANNOTATIONS)
    if cfg.DATA.CLASSES and Path(cfg.DATA.CLASSES).expanduser().is_file():
        cfg.DATA.CLASSES = _absolute(cfg.DATA.CLASSES)
    defaults, nested = config.flat(config.defaults()), {}
    for name, value in config.flat(cfg).items():
        if value != defaults.get(name):
            *groups, key = name.split(".")
            place = nested
            for group in groups:
                place = place.setdefault(group, {})
            place[key] = list(value) if isinstance(value, tuple) else value
    start = "densessl"
    if advice.processes > 1:
        start = f"torchrun --standalone --nproc_per_node {advice.processes} -m densessl"
    lines = [f"{start} pretrain --config {shlex.quote(str(args.output))}"]
    lines.append(f"By densessl advise, from {advice.name}:")
    for choice in advice.choices:
        lines.append(f"{choice.option} {choice.value}: {choice.reason} [{choice.source}]")
    wrapped = (textwrap.wrap(line, WIDTH, subsequent_indent="  ") for line in lines)
    head = "".join(f"# {part}\n" for line in wrapped for part in line)
    return head + yaml.safe_dump(nested, sort_keys=False, allow_unicode=True)


def _absolute(paths: str) -> str:
    from .config import split_paths

    parts = split_paths(paths) if paths else []
    return os.pathsep.join(str(part.absolute()) for part in parts)


def report(
    advice: "Advice", images: "Images", machine: "Machine", trial: "Trial | None"
) -> Iterator[Table | str]:
    """What is said of the images, the options, what deserves a remark, and the costs."""
    from .contradictions import contradictions, too_large_views

    grey = f", {images.grey:.0%} grey" if images.grey else ""
    where = f"{machine.gpus} GPU{'s' if machine.gpus > 1 else ''}" if machine.gpus else "the CPU"
    yield f"{images.number:,} images, shorter sides of about {images.side:g} px{grey}; on {where}"
    yield _table(advice)
    for line in contradictions(advice.cfg, images.number):
        yield f"warning: {line}"
    for line in too_large_views(advice.cfg, images.side):
        yield f"warning: {line}"
    for line in advice.notes:
        yield f"note: {line}"
    if trial is not None:
        yield _costs(advice, images, machine, trial)


def _table(advice: "Advice") -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("option", style="bold", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column(Text("why [source]"), overflow="fold")
    for each in advice.choices:
        why = Text.assemble(each.reason, (f" [{each.source}]", "dim"))
        table.add_row(each.option, str(each.value), why)
    return table


def _costs(advice: "Advice", images: "Images", machine: "Machine", trial: "Trial") -> Table:
    """What the run would take, of this machine; and what it would not say of another."""
    from .advise_rules import run_steps

    cfg = advice.cfg
    steps, share = run_steps(cfg, images.number), cfg.SOLVER.BATCH_SIZE // advice.processes
    other = machine.gpus and "CPU" in trial.device
    speed = trial.images_per_second * (1 if other else advice.processes)
    rows = {
        "measured here": f"{trial.steps} steps of {trial.images} images on {trial.device}: "
        f"{trial.images_per_second:.3g} images/s, loading included"
    }
    took = duration(steps * cfg.SOLVER.BATCH_SIZE / speed)
    if other:
        rows["time"] = (
            f"{took} for {steps:,} steps on this machine; of {machine.gpus} GPUs it says "
        )
        rows["time"] += "nothing: ask there"
    else:
        rows["time"] = f"{took} for {steps:,} steps of {cfg.SOLVER.BATCH_SIZE}"
        if advice.processes > 1:
            rows["time"] += f", were {advice.processes} GPUs {advice.processes} times as fast"
    need = f"{byte_size(int(trial.memory_at(share)))} a process at {share} images a step"
    how = "measured" if share <= trial.images else f"in a straight line from {trial.images} images"
    rows["memory"] = f"about {need} ({how})"
    files = cfg.CHECKPOINT.KEEP + 1
    free = shutil.disk_usage(standing(Path(cfg.OUTPUT_DIR))).free
    rows["disk"] = f"{byte_size(trial.checkpoint * files)}: {files} checkpoints of "
    rows["disk"] += (
        f"{byte_size(trial.checkpoint)}; {byte_size(free)} are free for {cfg.OUTPUT_DIR}"
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table
