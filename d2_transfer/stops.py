"""What asks a trial to stop, and how its evaluation answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from densessl.core import waiting
from densessl.core.distributed import world_size
from densessl.core.errors import Interrupted, StoppedEarly
from densessl.core.stops import Stops

STOPPED = "stopped in the evaluation; the same command evaluates again"


def stoppable() -> Stops:
    """The block of a trial: a signal asks for a stop (``waiting.asked()``), which its loop answers
    at its next step; a Ctrl-C after that unwinds it."""
    return Stops(unwinds=True, speaks=world_size() == 1)  # else the parent process speaks


@contextmanager
def evaluation() -> Iterator[None]:
    """An evaluation, which has nothing to save: it ends with Interrupted as soon as a stop is
    asked for."""
    try:
        with waiting.wait():
            yield
    except Interrupted:
        raise Interrupted(STOPPED) from None


def stop_after(trial: int) -> None:
    """For the end of a trial: StoppedEarly if a stop was asked for too late for anything else."""
    if waiting.asked():
        raise StoppedEarly(f"stopped; trial {trial} is finished, the same command does the rest")
