"""Logging: coloured on a terminal, plain elsewhere, and always into the run's ``log.txt``."""

import logging
import os
import sys
from functools import lru_cache
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING

from . import command
from .lines import Lines

if TYPE_CHECKING:
    from rich.console import Console

EARLY = 1000  # lines that wait for their file, at most
FORMAT = "%(asctime)s %(levelname)s %(message)s"


@lru_cache
def console() -> "Console":
    """The one console for people: standard error, so that standard output stays for results."""
    from rich.console import Console

    return Console(stderr=True)


class FileHandler(logging.Handler):
    """Appends records to ``path``, in the words of ``line_format``; a full disk ends nothing."""

    def __init__(self, path: str | os.PathLike, line_format: str = FORMAT):
        super().__init__()
        self.lines = Lines(path)
        self.setFormatter(logging.Formatter(line_format))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.write(self.format(record))
        except Exception:  # as every handler does: a log must not end what it is about
            self.handleError(record)

    def close(self) -> None:
        self.lines.close()
        super().close()


def setup(
    output_dir: str | os.PathLike | None = None, rank: int = 0, name: str = "log.txt"
) -> logging.Logger:
    """Send the 'densessl' log to the terminal and to the file ``output_dir/name`` (appended).

    Ranks other than 0 log warnings only, and to no file. Safe to call again: handlers are replaced.
    Without ``output_dir`` the log waits in memory for the call that names it, so that a run that is
    refused in between makes no folder.
    """
    logger = logging.getLogger("densessl")
    waiting = [each for each in logger.handlers if isinstance(each, MemoryHandler)]
    records = [record for handler in waiting for record in handler.buffer]
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        screen: logging.Handler = RichHandler(
            console=console(), show_path=False, markup=False, log_time_format="[%X]"
        )
    else:
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    logger.addHandler(screen)
    if output_dir is not None and rank == 0:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        file = FileHandler(Path(output_dir) / name)
        logger.addHandler(file)
        if line := command.line():
            file.handle(logger.makeRecord("", logging.INFO, "", 0, line, (), None))
        for record in records:
            file.handle(record)
    elif rank == 0:
        logger.addHandler(MemoryHandler(EARLY, flushLevel=logging.CRITICAL + 1))
    return logger
