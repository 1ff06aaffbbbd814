"""One folder, one run: a second process is turned away instead of writing into the first's."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def locked(folder: Path, name: str, instead: str) -> Iterator[None]:
    """Hold ``folder``, which exists; InputError (``name`` is in use, or take ``instead``) when
    another process holds it.

    The kernel gives the lock back when the process ends, however it ends. It is a record lock,
    which child processes do not inherit, so a killed run can be started again at once. File
    systems without locks are used without.
    """
    with open(folder / ".lock", "a+", encoding="utf-8") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                stream.seek(0)
                raise InputError(
                    f"{name} is in use by another run ({stream.read().strip()}); wait for it, or "
                    f"give another {instead}"
                ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        yield
