"""Work shared out to processes that start, stop and end with this one."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from densessl.core.errors import EnvironmentLacks

STOPS = (signal.SIGINT, signal.SIGTERM)
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def results(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, start: str = "spawn"
) -> Iterator[Iterator[Result]]:
    """An iterator over ``function(item)`` of every item, in their order.

    One worker: in this process. ``start``: how processes begin; "fork" is for functions whose
    modules take long to import. They ignore Ctrl-C and SIGTERM, which are this process's to
    handle: when the block is left early they finish the item that they are at and begin no other.
    """
    if workers == 1:
        yield map(function, items)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(start), _begin)
    try:
        with _signals_for_children():
            ready = pool.map(function, items)
        yield ready
    except BrokenProcessPool:
        raise EnvironmentLacks(
            f"one of {workers} processes was killed, perhaps for want of memory; free some"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _signals_for_children() -> Iterator[None]:
    """What processes begun here inherit: handlers of this one would keep them from ending."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent leaves nobody who waits for work."""
    multiprocessing.parent_process().join()
    os._exit(1)
