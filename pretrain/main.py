"""``densessl pretrain``: train a backbone without labels; found unfinished, it resumes."""

import os
import re
import sys
import textwrap

from densessl.configs.presets import Preset, built_in
from densessl.core import trackers
from densessl.core.errors import InputError, StoppedEarly
from densessl.core.options import pairs
from densessl.core.parser import Parser

ROW = re.compile(r"_\d+ep$")  # ends the names of the configs that are rows of papers' tables
EPILOG = """
KEY VALUE pairs (or KEY=VALUE) change options of the config file, as in
'SOLVER.EPOCHS 100 DATA.WORKERS 8'.
The same command resumes after an interruption (Ctrl-C, SIGTERM: saved, exit code 75) and after a
crash (from the last checkpoint). A lower rate after a divergence, or more epochs of a complete
run: 'SOLVER.BASE_LR 0.01 --change SOLVER.BASE_LR'. Several GPUs:
torchrun --standalone --nproc_per_node 8 -m densessl pretrain …
"""


def parser() -> Parser:
    parse = Parser(
        prog="densessl pretrain",
        description="Train a backbone without labels; found unfinished, it resumes.",
        epilog=EPILOG,
        keys=_keys,
    )
    parse.add_argument(
        "--config", metavar="FILE", help="a YAML file, or the name of a built-in config"
    )
    parse.add_argument("--list", action="store_true", help="print the built-in configs, and stop")
    parse.add_argument(
        "--print-config", action="store_true", help="print every option as it would be, and stop"
    )
    parse.add_argument(
        "--change",
        nargs="+",
        default=[],
        metavar="KEY",
        help="resume from the last checkpoint with these options at other values than before "
        "(KEY VALUE does so, too); it is recorded",
    )
    parse.add_argument(
        "--stall-timeout",
        metavar="SECONDS",
        help="STALL_TIMEOUT: end a run that makes no progress for so long, with the stacks of all "
        "processes in its log (600; 0: never)",
    )
    parse.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="options by name")
    return parse


def _keys() -> list[str]:
    from . import config

    return config.option_names(config.defaults())


def main(argv: list[str]) -> int:
    """Run the verb; returns the exit code. Raises the errors of ``densessl.core.errors``."""
    options = parser().parse_intermixed_args(argv)
    if options.list:
        sys.stdout.write(listing(built_in()))
        return 0
    from . import config
    from .engine import changes

    if not options.config:
        presets = [name for name in config.built_in() if not ROW.search(name)]
        raise InputError(
            f"--config is missing: a YAML file, or a built-in one ({', '.join(presets)}, and the "
            "rows of the papers' tables that --list shows)"
        )
    change, values = changes.named(options.change)
    given = [*pairs(options.overrides), *values]
    if options.stall_timeout is not None:
        given += ["STALL_TIMEOUT", options.stall_timeout]
    cfg = config.load(options.config, given)
    config.check(cfg, int(os.environ.get("WORLD_SIZE", 1)))
    if options.print_config:
        config.validate_loaded(cfg, options.config, given)
        sys.stdout.write(cfg.dump())
        return 0
    config.check_folders(cfg)
    config.data_paths(cfg.DATA)
    trackers.require(config.flat(cfg))
    from .engine.train import train

    try:
        train(cfg, change=change)
    except StoppedEarly as stopped:
        if os.environ.get("RANK", "0") == "0":
            raise
        return stopped.exit_code  # one process says it for all
    return 0


def listing(presets: dict[str, Preset]) -> str:
    """A line for each built-in config: its name, and what it says it is."""
    width = max(map(len, presets))
    lines = []
    for name, preset in presets.items():
        sentence = re.split(r"(?<!et al)\.(?: |$)", preset.about()["description"])[0]
        lines.append(f"{name:{width}s}  {textwrap.shorten(sentence, 110, placeholder=' …')}\n")
    return "".join(lines) + "\nNAME_scenes is the twin of each, small enough for a CPU\n"
