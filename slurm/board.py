"""One line a job: its state, its time and what it said last."""

import logging
import re
import sys
import time
from typing import TYPE_CHECKING

from densessl.core.log import console
from densessl.core.progress import PLAIN_INTERVAL, duration

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

STAMP = re.compile(r"^\d\d:\d\d:\d\d [A-Z]+ ")  # of console.log's lines
SHARE = 10  # the table is drawn for one part in so many of the time at most
STYLES = {
    "waiting": "dim",
    "running": "bold cyan",
    "done": "green",
    "done before": "green",
    "stopped": "yellow",
    "failed": "bold red",
    "not run": "dim red",
    "left out": "dim",
}


class JobBoard:
    """The states of the jobs: a live table on a terminal, plain lines in the log elsewhere."""

    def __init__(self, names: list[str]):
        self.states = dict.fromkeys(names, "waiting")
        self._places = {name: place for place, name in enumerate(self.states, 1)}
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, str] = {}  # what each running job said last
        self._began: dict[str, float] = {}
        self._logged: dict[str, float] = {}
        self._live = _live_table()
        self._next = 0.0  # when the table may be drawn again

    def __enter__(self) -> "JobBoard":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception) -> None:
        self.lines.clear()
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def set(self, name: str, state: str, seconds: float | None = None) -> None:
        """The job entered a state; ``seconds`` is how long it took when it ended."""
        self.states[name] = state
        self.lines.pop(name, None)
        self._logged[name] = time.monotonic()
        if state == "running":
            self._began[name] = time.monotonic()
        if seconds is not None:
            self.seconds[name] = seconds
        if self._live:
            self._redraw()
        else:
            took = f" ({duration(seconds)})" if seconds is not None else ""
            self._log(name, f"{state}{took}")

    def show(self, name: str, line: str) -> None:
        """A running job's last line; where there is no terminal, only now and then."""
        line = STAMP.sub("", line)
        self.seconds[name] = time.monotonic() - self._began[name]
        if self._live:
            self.lines[name] = line
            self._redraw()
        elif line == self.lines.get(name, ""):
            return
        elif time.monotonic() - self._logged[name] >= PLAIN_INTERVAL:
            self.lines[name] = line
            self._logged[name] = time.monotonic()
            self._log(name, line)

    def _redraw(self) -> None:
        """Draw the table, unless that would take most of the time, as with thousands of rows."""
        began = time.monotonic()
        if self._live and began >= self._next:
            self._live.update(self._table(), refresh=True)
            self._next = began + SHARE * (time.monotonic() - began)

    def _log(self, name: str, text: str) -> None:
        logging.getLogger("densessl").info(
            "[%d/%d] %s: %s", self._places[name], len(self.states), name, text
        )

    def _table(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for name, state in self.states.items():
            took = duration(self.seconds[name]) if name in self.seconds else ""
            line = self.lines.get(name, "") if state == "running" else ""
            style = STYLES[state]
            grid.add_row(Text(name, style), Text(state, style), took, Text(line))
        return grid


def _live_table() -> "Live | None":
    """What a terminal redraws as it changes; None where there is no terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.live import Live

    return Live(console=console(), auto_refresh=False)
