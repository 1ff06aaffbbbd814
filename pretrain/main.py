"""``densessl pretrain``: train a backbone without labels; found unfinished, it goes on."""

import os
import re
import sys
import textwrap
from pathlib import Path

from console.errors import InputError, StoppedEarly
from console.parser import Parser

ROW = re.compile(r"_\d+ep$")  # ends the names of the configs that are rows of papers' tables
EPILOG = """
KEY VALUE pairs change options of the config file, as in 'SOLVER.EPOCHS 100 DATA.WORKERS 8'.
The same command goes on after an interruption (Ctrl-C, SIGTERM: saved, exit code 75) and after a
crash (from the last checkpoint). Several GPUs: torchrun --nproc_per_node 8 -m densessl pretrain …
"""


def parser() -> Parser:
    parse = Parser(
        prog="densessl pretrain",
        description="Train a backbone without labels; found unfinished, it goes on.",
        epilog=EPILOG,
    )
    parse.add_argument(
        "--config", metavar="FILE", help="a YAML file, or the name of a built-in config"
    )
    parse.add_argument("--list", action="store_true", help="print the built-in configs, and stop")
    parse.add_argument(
        "--print-config", action="store_true", help="print every option as it would be, and stop"
    )
    parse.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="options by name")
    return parse


def main(argv: list[str]) -> int:
    """Run the verb; returns the exit code. Raises the errors of ``console.errors``."""
    options = parser().parse_args(argv)
    from . import config

    if options.list:
        sys.stdout.write(listing(config.built_in()))
        return 0
    if not options.config:
        presets = [name for name in config.built_in() if not ROW.search(name)]
        raise InputError(
            f"--config is missing: a YAML file, or a built-in one ({', '.join(presets)}, and the "
            "rows of the papers' tables that --list shows)"
        )
    cfg = config.load(options.config, options.overrides)
    if options.print_config:
        config.validate(cfg)
        sys.stdout.write(cfg.dump())
        return 0
    from .engine.train import train

    try:
        train(cfg)
    except StoppedEarly as stopped:
        if os.environ.get("RANK", "0") == "0":
            raise
        return stopped.exit_code  # one process says it for all
    return 0


def listing(built_in: dict[str, Path]) -> str:
    """A line for each built-in config: its name, and what its head comment says it is."""
    width = max(map(len, built_in))
    lines = []
    for name, file in built_in.items():
        head = [line for line in file.read_text().splitlines() if line.startswith("#")]
        text = " ".join(line.removeprefix("# ") for line in head[1:])
        sentence = re.split(r"(?<!et al)\.(?: |$)", text)[0]
        lines.append(f"{name:{width}s}  {textwrap.shorten(sentence, 110, placeholder=' …')}\n")
    return "".join(lines) + "\nNAME_scenes is the twin of each, small enough for a CPU\n"
