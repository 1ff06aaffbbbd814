"""One job, one run: a file that names who runs it, taken over when that one is gone.

In place of a lock of the file system alone, which the nodes of a cluster may not share.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from densessl.core import form
from densessl.core.errors import DenseSSLError, InputError
from densessl.core.files import read_json, write_json
from densessl.core.lock import locked

from .queue import read_queue

WAIT = 30  # seconds for an earlier run to end


@dataclass(frozen=True)
class Owner:
    """Who runs a job: SLURM's number (empty outside of it), host, process and when that began."""

    slurm_job: str
    host: str
    process: int
    began: int  # clock ticks after the machine's start, so that a number used again is told apart

    @classmethod
    def me(cls, slurm_job: str) -> "Owner":
        return cls(slurm_job, socket.gethostname(), os.getpid(), _began(os.getpid()))

    def is_gone(self, slurm_job: str) -> bool:
        """Whether it runs no more, as ``slurm_job`` sees it; False where that cannot be told."""
        if self.host == socket.gethostname():
            return _began(self.process) != self.began
        if self.slurm_job and self.slurm_job == slurm_job:
            return True  # SLURM queued us again: it ended the earlier run first
        if not self.slurm_job:
            return False
        try:
            queue = read_queue()
        except DenseSSLError:
            return False
        return queue is not None and self.slurm_job not in queue


OWNER = form.of_class(Owner)


@contextmanager
def held(file: Path, slurm_job: str) -> Iterator[None]:
    """Hold the lock ``file`` for this process; InputError where another one keeps holding it."""
    me = Owner.me(slurm_job)
    deadline = time.monotonic() + WAIT
    while (other := _take(file, me)) is not None:
        if time.monotonic() > deadline:
            job = f"SLURM's job {other.slurm_job}, " if other.slurm_job else ""
            raise InputError(
                f"'{file.stem}' is being run by {job}process {other.process} on {other.host}; "
                f"where that is long gone, delete {file}"
            )
        time.sleep(1)
    try:
        yield
    finally:
        with suppress(OSError):
            if _read(file) == me:
                file.unlink()


def _take(file: Path, me: Owner) -> Owner | None:
    """Take the lock; the other one where it is held."""
    with locked(file.with_name(f".{file.name}.guard"), busy=None):
        other = _read(file)
        if other is not None and other != me and not other.is_gone(me.slurm_job):
            return other
        write_json(file, asdict(me))
    return None


def _read(file: Path) -> Owner | None:
    try:
        values = read_json(file)
    except (FileNotFoundError, ValueError):
        return None
    return (
        Owner(**values) if form.fault(values, OWNER) is None and len(values) == len(OWNER) else None
    )


def _began(process: int) -> int:
    """When a process of this machine began; 0 where there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0
    state, *_ = after = text.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(after[19])
