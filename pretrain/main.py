"""``densessl pretrain``: train a backbone without labels; found unfinished, it goes on."""

import os
import sys

import configs
from console.errors import InputError, StoppedEarly
from console.parser import Parser

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
    parse.add_argument(
        "--print-config", action="store_true", help="print every option as it would be, and stop"
    )
    parse.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="options by name")
    return parse


def main(argv: list[str]) -> int:
    """Run the verb; returns the exit code. Raises the errors of ``console.errors``."""
    options = parser().parse_args(argv)
    if not options.config:
        built_in = sorted(file.stem for file in (configs.FOLDER / "pretrain").glob("**/*.yaml"))
        raise InputError(
            f"--config is missing: a YAML file, or one of the built-in {', '.join(built_in)}"
        )
    from . import config

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
