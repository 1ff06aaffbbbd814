"""Which command this process runs, for the logs that it writes."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

MARK = "$ "  # begins the line of log.txt that says which command wrote what follows

_words: tuple[str, ...] = ()


@contextmanager
def named(words: Sequence[str]) -> Iterator[None]:
    """Name the command in this block; every ``log.txt`` that it writes begins with it."""
    global _words
    outer, _words = _words, tuple(words)
    try:
        yield
    finally:
        _words = outer


def line() -> str:
    """The command as one would type it, behind MARK; empty where none is named."""
    return MARK + shlex.join(_words) if _words else ""
