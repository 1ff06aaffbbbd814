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


class Bar:
    """A counter of ``total`` steps that shows itself; use it as a context manager.

    ``advance(n, note="")`` counts; ``note`` is a short text shown beside the bar.
    ``start`` steps count as done before (a resumed run), and do not spoil the time left.
    """

    def __init__(self, description: str, total: int, start: int = 0):
        self.description, self.total = description, total
        self.done = self.start = start
        self.note = ""
        self._rich: Progress | None = None

    def __enter__(self) -> "Bar":
        self._began = self._shown = time.monotonic()
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
        return self

    def __exit__(self, *exception) -> None:
        if self._rich:
            self._rich.stop()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        beat()
        self.done += steps
        if note is not None:
            self.note = note
        if self._rich:
            self._rich.update(self._task, completed=self.done, note=self.note)
            return
        now = time.monotonic()
        done = self.done == self.total and now - self._began >= BRIEF
        if done or now - self._shown >= PLAIN_INTERVAL:
            self._shown = now
            per_step = (now - self._began) / max(self.done - self.start, 1)
            left = duration(per_step * (self.total - self.done))
            tail = f"  {self.note}" if self.note else ""
            logging.getLogger("densessl").info(
                "%s %d/%d, %s left%s", self.description, self.done, self.total, left, tail
            )


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterate over ``items`` behind a :class:`Bar`; ``total``: theirs, without a length."""
    if total is None:
        total = len(items)  # type: ignore[arg-type]
    with Bar(description, total) as bar:
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
