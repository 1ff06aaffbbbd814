"""What ``densessl advise`` gives: tables for people, the command to copy, a config file."""

import os
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.table import Table
from rich.text import Text

from densessl.core.files import standing
from densessl.core.options import nested
from densessl.core.progress import duration
from densessl.core.units import byte_size, many

from . import config
from .advise_model import Advice, ImageStats, Machine
from .advise_rules import run_steps
from .advise_trial import Trial
from .contradictions import contradictions, too_large_views

WIDTH = 96  # of a comment in a config file


def report(
    advice: Advice, images: ImageStats, machine: Machine, trial: Trial | None
) -> Iterator[Table | Text]:
    """What is said of the images, the options, what deserves a remark, and the costs."""
    grey = f", {images.grey:.0%} grey" if images.grey else ""
    where = f"{machine.gpus} GPU{'s' if machine.gpus > 1 else ''}" if machine.gpus else "the CPU"
    size = f"shorter sides of about {images.side:g} px"
    yield Text(f"{images.number:,} images, {size}{grey}; on {where}")
    yield _table(advice)
    for line in contradictions(advice.cfg, images.number):
        yield Text(f"warning: {line}", "yellow")
    for line in too_large_views(advice.cfg, images.side):
        yield Text(f"warning: {line}", "yellow")
    for line in advice.notes:
        yield Text(f"note: {line}")
    if trial is not None:
        yield _costs(advice, images, machine, trial)


def _table(advice: Advice) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("option", style="bold", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column(Text("why [source]"), overflow="fold")
    for each in advice.choices:
        why = Text.assemble(each.reason, (f" [{each.source}]", "dim"))
        table.add_row(each.option, Text(str(each.value)), why)
    return table


def _costs(advice: Advice, images: ImageStats, machine: Machine, trial: Trial) -> Table:
    """What the run would take, of this machine; and what it would not say of another."""
    cfg = advice.cfg
    steps, share = run_steps(cfg, images.number), cfg.SOLVER.BATCH_SIZE // advice.processes
    other = machine.gpus and not trial.gpu
    speed = trial.images_per_second * (1 if other else advice.processes)
    rows = {
        "measured here": f"{trial.steps} steps of {trial.images} images on {trial.device}: "
        f"{trial.images_per_second:.3g} images/s, loading included"
    }
    took = duration(steps * cfg.SOLVER.BATCH_SIZE / speed)
    if other:
        rows["time"] = f"{took} for {steps:,} steps on this machine, which says nothing of the "
        rows["time"] += f"time on {many(machine.gpus, 'GPU')}: ask there"
    else:
        rows["time"] = f"{took} for {steps:,} steps of {cfg.SOLVER.BATCH_SIZE}"
        if advice.processes > 1:
            rows["time"] += f", were {advice.processes} GPUs {advice.processes} times as fast"
    need = f"{byte_size(int(trial.memory_at(share)))} a process at {share} images a step"
    how = "measured" if share <= trial.images else f"in a straight line from {trial.images} images"
    rows["memory"] = f"about {need} ({how})"
    files = cfg.CHECKPOINT.KEEP + 1
    free = shutil.disk_usage(standing(Path(cfg.OUTPUT_DIR))).free
    each, together = byte_size(trial.checkpoint), byte_size(trial.checkpoint * files)
    rows["disk"] = f"{together}: {files} checkpoints of {each}; {byte_size(free)} are free"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def command(advice: Advice) -> str:
    """The command that trains as advised, as one types it."""
    words = [*_start(advice), "--config", advice.name]
    for key in ("SOURCE", "PATH", "CACHE", "CLASSES", "ANNOTATIONS", "TILE", "FRAME_RATE"):
        if advice.cfg.DATA[key] != advice.published.DATA[key]:
            words += [f"DATA.{key}", str(advice.cfg.DATA[key])]
    words += ["OUTPUT_DIR", advice.cfg.OUTPUT_DIR]
    for choice in advice.choices[1:]:
        words += [choice.option, str(choice.value)]
    return shlex.join(words)


def _start(advice: Advice) -> list[str]:
    if advice.processes == 1:
        return ["densessl", "pretrain"]
    torchrun = ["torchrun", "--standalone", "--nproc_per_node", str(advice.processes)]
    return [*torchrun, "-m", "densessl", "pretrain"]


def as_file(advice: Advice, file: str) -> str:
    """The config as a file: every option that is no default, below the reasons as comments.

    Paths are absolute, so that it can be taken from any folder.
    """
    cfg = advice.cfg.clone()
    cfg.DATA.PATH = _absolute(cfg.DATA.PATH)
    cfg.DATA.ANNOTATIONS = _absolute(cfg.DATA.ANNOTATIONS)
    cfg.DATA.CACHE = _absolute(cfg.DATA.CACHE)
    if cfg.DATA.CLASSES and Path(cfg.DATA.CLASSES).expanduser().is_file():
        cfg.DATA.CLASSES = _absolute(cfg.DATA.CLASSES)
    defaults = config.flat(config.defaults())
    differ = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in config.flat(cfg).items()
        if value != defaults.get(name)
    }
    lines = [shlex.join([*_start(advice), "--config", file])]
    lines.append(f"By densessl advise, from {advice.name}:")
    for choice in advice.choices:
        lines.append(f"{choice.option} {choice.value}: {choice.reason} [{choice.source}]")
    wrapped = (textwrap.wrap(line, WIDTH, subsequent_indent="  ") for line in lines)
    head = "".join(f"# {part}\n" for line in wrapped for part in line)
    return head + yaml.safe_dump(nested(differ), sort_keys=False, allow_unicode=True)


def _absolute(paths: str) -> str:
    parts = config.split_paths(paths) if paths else []
    return os.pathsep.join(str(part.absolute()) for part in parts)
