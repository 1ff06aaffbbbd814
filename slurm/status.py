"""``densessl status DIR``: what became of the jobs of a folder."""

import json
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from densessl.core.errors import DenseSSLError
from densessl.core.files import parse_json
from densessl.core.form import NUMBER, fault
from densessl.core.lines import tail
from densessl.core.lock import is_held
from densessl.core.names import one_line
from densessl.core.parser import Parser
from densessl.core.progress import duration

from . import ending
from . import state as folder_state
from .board import STAMP
from .graph import Finished, Job, in_order
from .queue import Queued, read_queue

if TYPE_CHECKING:
    from rich.console import Group

PERIOD = 5  # seconds between two looks of --watch
PATIENCE = 1.5  # seconds that SLURM has for its answer; then the folder's own files have to do
STEP = re.compile(r"(\d+)/(\d+), (.+?) left")  # of console.progress.Bar's plain lines
STYLES = {
    "done": "green",
    "running": "bold cyan",
    "requeued": "yellow",
    "queued": "",
    "stopped": "yellow",
    "failed": "bold red",
    "lost": "bold red",
    "not run": "dim red",
    "cancelled": "dim red",
    "waiting": "dim",
}


@dataclass
class StatusRow:
    """One job as :func:`look` finds it.

    ``state``: ``done``; ``running``; ``requeued`` (stopped politely, in the queue again);
    ``queued``; ``stopped`` (resumes with the same command); ``failed``; ``lost`` (it ran, and SLURM
    no longer knows it: its machine failed, or it was killed); ``not run`` (what it needs failed);
    ``cancelled``; ``waiting`` (never submitted). ``step`` of ``total``, ``left`` as text and
    ``speed`` in images/s are those of a running job; ``says`` is why, or its last line. ``away`` is
    why SLURM could not be asked; then ``state`` is what the job's own files say.
    """

    name: str
    state: str
    slurm_job: str = ""
    step: int | None = None
    total: int | None = None
    left: str = ""
    speed: float | None = None
    seconds: float | None = None
    requeues: int = 0
    says: str = ""
    away: str = ""


def main(argv: list[str]) -> int:
    """What became of the jobs of a folder: queued, running, requeued, failed, done."""
    parser = Parser(prog="densessl status", description=main.__doc__)
    parser.add_argument("folder", metavar="DIR", help="of a submission, a pipeline or the demo")
    parser.add_argument("--watch", action="store_true", help="look again until all have ended")
    parser.add_argument("--json", action="store_true", help="one JSON object a job, for scripts")
    args = parser.parse_args(argv)
    folder = Path(args.folder)
    rows = look(folder)
    if args.json:
        for row in rows:
            print(json.dumps(vars(row)))
    elif args.watch:
        watch(folder)
    else:
        from rich.console import Console

        screen = Console() if sys.stdout.isatty() else Console(width=160, no_color=True)
        screen.print(drawn(rows))
    return 0


def look(folder: Path) -> list[StatusRow]:
    """A row for every job of the graph in ``folder``; InputError where there is none."""
    jobs = in_order(folder_state.read_graph(folder)[0])
    finished = Finished(jobs, folder)
    numbers: dict[str, str] = {}
    for job in jobs:
        if submission := folder_state.read_submission(folder, job.name):
            numbers[job.name] = submission.slurm_job
    with ThreadPoolExecutor(1) as beside:
        # What has ended stays so, and is read meanwhile; the rest is read when SLURM has answered,
        # or a job that ends in between would be in neither.
        asked = beside.submit(_queue) if numbers else None  # a run on this machine needs no SLURM
        ended = finished.of_all()
        queue, away = asked.result() if asked else (None, "")
    cancelled = folder_state.is_cancelled(folder)
    rows: dict[str, StatusRow] = {}
    for job in jobs:
        recorded = folder_state.read_state(folder, job.name)
        seconds = ended.get(job.name)
        if seconds is None and recorded and recorded.state == "done":
            seconds = finished.seconds(job.name)  # it may have ended since
        number = numbers.get(job.name, "")
        rows[job.name] = _row(job, folder, recorded, number, seconds, queue, cancelled)
        rows[job.name].away = away
    for job in jobs:  # in the order of their needs, so one failure reaches all that need it
        row = rows[job.name]
        failed = [need for need in job.needs if rows[need].state in ("failed", "lost", "not run")]
        if failed and row.state in ("waiting", "cancelled"):
            row.state, row.says = "not run", f"'{failed[0]}' {rows[failed[0]].state}"
    return list(rows.values())


def _queue() -> tuple[dict[str, Queued] | None, str]:
    """SLURM's answer, or None and why there is none in a moment."""
    try:
        queue = read_queue(tries=1, patience=PATIENCE)
    except DenseSSLError as error:
        return None, one_line(error)
    return queue, "" if queue is not None else "there is no squeue here"


def _row(
    job: Job,
    folder: Path,
    recorded: folder_state.State | None,
    number: str,
    seconds: float | None,
    queue: dict[str, Queued] | None,
    cancelled: bool,
) -> StatusRow:
    """``number``: SLURM's, empty for a job that was not submitted; ``seconds``: that it took."""
    row = StatusRow(job.name, "waiting", number, requeues=recorded.requeues if recorded else 0)
    if seconds is not None:
        row.state, row.seconds = "done", seconds
        return row
    queued = (queue or {}).get(number)
    if queued and not queued.runs:
        row.state = "requeued" if recorded and recorded.state == "requeued" else "queued"
        row.says = _why(queued)
    elif recorded and recorded.state == "running" and not recorded.slurm_job:  # on this machine
        row.state = "running" if is_held(folder / ".lock") else "stopped"
        _read_progress(row, job, folder, recorded)
        if row.state == "stopped":
            row.says = "its run was killed; the same command resumes"
    elif recorded and recorded.state == "running":
        row.state = "running" if queued or queue is None else "lost"
        _read_progress(row, job, folder, recorded)
        if row.state == "lost":
            row.says = f"it ran on {one_line(recorded.host)} and SLURM no longer knows it"
            if word := ending.slurms_word(folder, number):
                row.says = f"{word}; {row.says}"
    elif queued:
        row.state, row.says = "running", "starting"
    elif recorded and recorded.state in ("failed", "stopped"):
        row.state, row.says = recorded.state, _reason(recorded, folder)
    elif number and queue is None and not cancelled:
        row.state = "requeued" if recorded and recorded.state == "requeued" else "queued"
    elif number:
        row.state = "cancelled"
    return row


def _reason(recorded: folder_state.State, folder: Path) -> str:
    """Why a job ended: SLURM's word on memory, what the end was, and the message that it left."""
    why, last = one_line(recorded.why), _last(recorded.error)
    word = ending.slurms_word(folder, recorded.slurm_job) if recorded.slurm_job else ""
    if ending.MEMORY.search(word):
        return f"{word}; {why or last}"
    informative = last and (not why or ("exit code" in why and not STEP.search(last)))
    return ": ".join(filter(None, (why, last if informative else "")))


def _why(queued: Queued) -> str:
    words = {
        "Dependency": "waits for the jobs before it",
        "Priority": "waits for its turn",
        "Resources": "waits for free machines",
        "BeginTime": "waits a moment before it starts again",
        "DependencyNeverSatisfied": "what it needs has failed",
    }
    text = words.get(queued.reason, queued.reason)
    return f"{text}; expected to start at {queued.starts}" if queued.starts else text


def _read_progress(row: StatusRow, job: Job, folder: Path, recorded: folder_state.State) -> None:
    """The step, the time left and the speed, from the job's own log and metrics."""
    row.seconds = _since(recorded.started) if row.state == "running" else None
    lines = tail(folder / "logs" / f"{job.name}.txt")
    for line in reversed(lines):
        if found := STEP.search(line):
            row.step, row.total, row.left = int(found[1]), int(found[2]), found[3]
            break
    row.says = STAMP.sub("", lines[-1].strip()) if lines else ""
    for output in job.outputs:
        for line in reversed(tail(output.parent / "metrics.jsonl")):
            try:
                values = parse_json(line)
            except ValueError:  # the first of the tail may be cut
                continue
            if fault(values, {"images_per_second": NUMBER}) is None:
                row.speed = values["images_per_second"]
                return


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else ""


def _since(started: str) -> float | None:
    try:
        seconds = (datetime.now(timezone.utc) - datetime.fromisoformat(started)).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return None
    return seconds if seconds >= 0 else None  # the clock was set back meanwhile


def drawn(rows: list[StatusRow]) -> "Group":
    """The rows for a rich console, and the sums below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for name in ("job", "state", "step", "left", "images/s", "time"):
        right = name not in ("job", "state")
        grid.add_column(name, no_wrap=True, justify="right" if right else "left")
    grid.add_column("", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        step = f"{row.step}/{row.total}" if row.total else ""
        speed = f"{row.speed:.1f}" if row.speed is not None else ""
        took = duration(row.seconds) if row.seconds is not None else ""
        again = f" ({row.requeues}x)" if row.requeues else ""
        style = STYLES[row.state]
        state = Text(row.state + again, style)
        job, left, says = (Text(one_line(each)) for each in (row.name, row.left, row.says))
        job.stylize(style)
        grid.add_row(job, state, step, left, speed, took, says)
    counts = Counter(row.state for row in rows)
    total = ", ".join(f"{counts[name]} {name}" for name in STYLES if counts[name])
    below = [Text(f"{len(rows)} jobs: {total}", "dim")]
    if away := next((row.away for row in rows if row.away), ""):
        below.append(Text(f"SLURM does not answer ({away}): these are the states in the files"))
    return Group(grid, *below)


def watch(folder: Path) -> None:
    """Redraw the rows every few seconds, until nothing is queued or runs (or Ctrl-C)."""
    from rich.live import Live

    live = ("queued", "running", "requeued")
    with Live(auto_refresh=False) as screen, suppress(KeyboardInterrupt):
        while True:
            rows = look(folder)
            screen.update(drawn(rows), refresh=True)
            if not any(row.state in live for row in rows):
                return
            time.sleep(PERIOD)
