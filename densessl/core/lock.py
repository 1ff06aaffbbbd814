"""Files that one process at a time holds: a second one is turned away, or waits."""

import errno
import fcntl
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError


@contextmanager
def locked(
    file: Path, busy: Callable[[str], str] | None, *, inherited: bool = False
) -> Iterator[int]:
    """Hold the lock ``file``, made where it is missing; its descriptor.

    Where another process holds it, InputError with the message ``busy(who)``; without ``busy``
    wait for it. The kernel gives the lock back when the process ends, however it ends. It is a
    record lock, which child processes do not inherit, so a killed run can be started again at once;
    one that is ``inherited`` is held also by processes that are handed the descriptor. File systems
    without locks are used without.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = fcntl.flock if inherited else fcntl.lockf
    with open(file, "a+b", buffering=0) as stream:
        is_locked = True
        try:
            lock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except OSError as error:
            if busy and error.errno in (errno.EACCES, errno.EAGAIN):
                stream.seek(0)
                raise InputError(busy(stream.read().decode(errors="replace").strip())) from None
            is_locked = False
        with suppress(OSError):  # a full disk; it is for messages, and for is_held without locks
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield stream.fileno()
        finally:
            if not is_locked:
                with suppress(OSError):
                    stream.truncate(0)


def in_use(name: str, instead: str) -> Callable[[str], str]:
    """The message that ``name`` is in use, and to take another ``instead``."""
    return lambda who: (
        f"{name} is in use by another run ({who}); wait for it, or give another {instead}"
    )


def is_held(file: Path) -> bool:
    """Whether a process holds the ``inherited`` lock ``file``.

    On a file system without locks: whether the process that took it last may still run, as far as
    this machine can tell.
    """
    try:
        with open(file) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return _may_run(file)
    return False


def _may_run(file: Path) -> bool:
    """Whether the process that a lock's file names is not known to have ended."""
    named = re.match(r"process (\d+) on (.*)", file.read_text(errors="replace"))
    if named is None:
        return False
    return named[2] != socket.gethostname() or Path(f"/proc/{named[1]}").exists()
