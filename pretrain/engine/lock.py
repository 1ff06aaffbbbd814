"""One OUTPUT_DIR, one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densessl.core import lock

from . import distributed


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this run, in its main process; InputError when another run holds it."""
    if not distributed.is_main():
        yield
        return
    with lock.locked(folder, f"OUTPUT_DIR {folder}", "OUTPUT_DIR"):
        yield
