"""Errors that a person can act on, and the exit code that each one means.

Only these reach the front door as a plain message; any other exception is a bug and keeps its
traceback.
"""

import difflib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from . import names

MOST = 40  # names that a message lists; of more it shows those that are near


class DenseSSLError(Exception):
    """An error with a message for people and an exit code for scripts."""

    exit_code = 1


class InputError(DenseSSLError):
    """The user's input is wrong: say what, where, the value, what is allowed."""

    exit_code = 2


class EnvironmentLacks(DenseSSLError):
    """Something is not installed or not there: say the command that fixes it."""

    exit_code = 3


class StoppedEarly(DenseSSLError):
    """Stopped on request with everything saved; the same command resumes."""

    exit_code = 75


class Interrupted(StoppedEarly):
    """Stopped in the middle of a wait: what came after the last save is not saved."""


class Stalled(DenseSSLError):
    """Stood still for too long, and was ended; the last checkpoint is whole."""


def run_module(main: Callable[[list[str]], int], name: str) -> None:
    """Leave with the exit code of ``main``; an error of ours is one message under ``name``.

    For what is run as ``python -m``, as the front door does for its verbs.
    """
    try:
        sys.exit(main(sys.argv[1:]))
    except DenseSSLError as error:
        report(f"{name}: {names.visible(error)}", error.exit_code)
        sys.exit(error.exit_code)


def report(message: str, exit_code: int) -> None:
    """Print the one message with which a process of the command line ends.

    torchrun prints a traceback of its own after it, and then what it finds in a file that it named
    for each process: there the message is repeated, so that it is among the last lines.
    (The form: torch.distributed.elastic.multiprocessing.errors.)
    """
    print(message, file=sys.stderr)
    if not (file := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        return
    # Of whole seconds the least is what torchrun calls the root cause: not a process that it ended.
    second = math.ceil if exit_code == StoppedEarly.exit_code else math.floor
    extra = {"py_callstack": message, "timestamp": str(second(time.time()))}
    text = json.dumps({"message": {"message": message, "extraInfo": extra}})
    with suppress(OSError), open(file, "w", encoding="utf-8") as stream:
        stream.write(text)


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word most like ``word``, or None when nothing comes close.

    Of dotted names it is the one that ends alike: SOLVER.BASE_LR for SOLVER.LR, lr or --lr.
    """
    by_lower = {str(name).lower(): str(name) for name in allowed}
    wanted = str(word).lower().lstrip("-")
    if any("." in name for name in by_lower):
        group, _, leaf = wanted.replace("-", "_").rpartition(".")
        alike = [name for name in by_lower if name.split(".")[-1] == leaf]
        longer = [name for name in by_lower if name.split(".")[-1].endswith(f"_{leaf}")]
        alike += sorted(longer, key=lambda name: name.count("_"))
        if found := sorted(alike, key=lambda name: name.rpartition(".")[0] != group):
            return by_lower[found[0]]
    found = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown(
    what: str,
    value: str,
    allowed: Iterable[str],
    where: str = "",
    known: Iterable[str] | None = None,
) -> InputError:
    """An InputError for a name that is not among ``allowed``, with the nearest one.

    ``known``: all names, among which the nearest one is looked for, where ``allowed`` are some.

    Example: ``raise unknown("protocol", "voc_det", PROTOCOLS, where="--protocol")``
    """
    allowed = list(allowed)
    location = f" in {where}" if where else ""
    hint = nearest(value, allowed if known is None else known)
    meant = f" Did you mean '{hint}'?" if hint else ""
    shown = sorted(allowed)
    if len(shown) > MOST:  # nobody reads a hundred names
        near = difflib.get_close_matches(value, shown, MOST // 4, cutoff=0.3)
        shown = [*sorted(near or shown[: MOST // 4]), f"… ({len(allowed)} in all)"]
    given = names.brief(value)
    return InputError(f"unknown {what} '{given}'{location}.{meant} Allowed: {', '.join(shown)}")
