"""Progress with the time left: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from .watchdog import beat

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal
BRIEF = 1.0  # seconds: what took less needs no line to say that it is done

logger = logging.getLogger("densessl")


class Bar:
    """A counter of ``total`` steps (None: not known) that shows itself; a context manager.

    ``advance(n, note="")`` counts; ``note`` is a short text shown beside the bar.
    ``start`` steps count as done before (a resumed run), and do not spoil the time left.
    ``late``: for what is mostly brief; there is no bar before it has taken a while, nor in those
    of a run's processes that are to be silent.
    """

    def __init__(self, description: str, total: int | None, start: int = 0, *, late: bool = False):
        self.description, self.total, self.late = description, total, late
        self.done = self.start = start
        self.note = ""
        self._rich: Progress | None = None

    def __enter__(self) -> "Bar":
        self._began = self._shown = time.monotonic()
        if not self.late:
            self._show()
        return self

    def _show(self) -> None:
        if sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            from .log import console

            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console(),
            )
            self._rich.start()
            self._task = self._rich.add_task(
                self.description, total=self.total, completed=self.start, note=""
            )

    def __exit__(self, *exception) -> None:
        if self._rich:
            self._rich.stop()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        beat()
        self.done += steps
        if note is not None:
            self.note = note
        now = time.monotonic()
        is_long = now - self._began >= BRIEF
        if self.late and is_long and not self._rich and logger.isEnabledFor(logging.INFO):
            self._show()
        if self._rich:
            self._rich.update(self._task, completed=self.done, note=self.note)
            return
        done = self.done == self.total and is_long
        if done or now - self._shown >= PLAIN_INTERVAL:
            self._shown = now
            tail = f"  {self.note}" if self.note else ""
            if self.total is None:
                logger.info("%s %d%s", self.description, self.done, tail)
                return
            per_step = (now - self._began) / max(self.done - self.start, 1)
            left = duration(per_step * (self.total - self.done))
            logger.info("%s %d/%d, %s left%s", self.description, self.done, self.total, left, tail)


def track(
    items: Iterable[Item], description: str, total: int | None = None, *, late: bool = False
) -> Iterator[Item]:
    """Iterate over ``items`` behind a :class:`Bar`; ``total``: theirs, without a length."""
    if total is None:
        total = len(items)  # type: ignore[arg-type]
    with Bar(description, total, late=late) as bar:
        for item in items:
            yield item
            bar.advance()


def duration(seconds: float) -> str:
    """Seconds as people say them: '42 s', '3 min 05 s', '2 h 10 min', '3 d 4 h'."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
