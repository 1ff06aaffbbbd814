"""Which command this process runs, for the logs that it writes."""

import shlex
from collections.abc import Sequence

MARK = "$ "  # begins the line of log.txt that says which command wrote what follows

_words: list[str] = []


def set_words(words: Sequence[str]) -> None:
    """Name the command; every ``log.txt`` that this process writes begins with it."""
    _words[:] = words


def line() -> str:
    """The command as one would type it, behind MARK; empty where none was named."""
    return MARK + shlex.join(_words) if _words else ""
