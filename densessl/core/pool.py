"""Work shared out to processes that start, stop and end with this one."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from .errors import EnvironmentLacks
from .stops import ALL, BESIDE_CTRL_C, handled

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def results(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    *,
    forked: bool = False,
    at_once: bool = False,
    option: str = "",
) -> Iterator[Iterator[Result]]:
    """An iterator over ``function(item)`` of every item, in their order.

    One worker: in this process. ``forked``, where that is safe: for a function that takes long to
    import or to send; it is sent to each process once. They ignore the signals that ask to stop,
    which are this process's to handle: when the block is left early they finish the item that they
    are at and begin no other, or are killed ``at_once`` (they may hang in a read). Raises
    EnvironmentLacks when one was killed; ``option`` names their number there.
    """
    if workers <= 1:
        yield map(function, items)
        return
    others = multiprocessing.active_children()
    start = "fork" if forked and sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(start)
    pool = ProcessPoolExecutor(workers, context, _begin, (function,))
    try:
        with handled(signal.default_int_handler, BESIDE_CTRL_C) if at_once else nullcontext():
            held = signal.pthread_sigmask(signal.SIG_BLOCK, ALL)  # until processes know theirs
            try:
                ready = pool.map(_work, items)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)
            yield ready
    except BrokenProcessPool:
        fewer = f", or have fewer at a time: {option} {workers // 2}" if option else ""
        raise EnvironmentLacks(
            f"one of {workers} processes was killed, perhaps for want of memory; free some{fewer}"
        ) from None
    except BaseException:
        for process in multiprocessing.active_children() if at_once else ():
            if process not in others:
                process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable[[Any], Any]  # of a worker


def _begin(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    for number in ALL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ALL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent leaves nobody who waits for work."""
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _work(item: Any) -> Any:
    return _function(item)
