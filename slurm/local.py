"""A graph of jobs, run on this machine; what is finished is not run again."""

import logging
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from densessl.core.errors import DenseSSLError, StoppedEarly
from densessl.core.files import clear_partials
from densessl.core.limits import cores
from densessl.core.lines import tail
from densessl.core.lock import locked
from densessl.core.progress import duration
from densessl.core.stops import ALL, handled

from . import ending
from .board import JobBoard
from .graph import Finished, Job, check_names, in_order
from .state import BEGUN, State, now, write_graph, write_state

STOPPED = StoppedEarly.exit_code
POLL = 0.2  # seconds between looks at the running job
TAIL = 15  # lines of a failed job's log that are shown


class JobFailed(DenseSSLError):
    """A job ended with an error; the graph's exit code is the job's."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def run_local(
    jobs: Sequence[Job],
    folder: str | os.PathLike,
    leaves_out: Callable[[Job], bool] = lambda job: False,
    at_once: int = 1,
) -> None:
    """Run the jobs in the order of their needs; the folder keeps their logs and what is finished.

    A finished job (:class:`Finished`) is not run again. A failed one stops those that need it; the
    others still run, then JobFailed shows the last lines of its log. ``leaves_out(job)`` is asked
    before each: one that is left out is not run, nor what needs it, and is no failure. Ctrl-C and
    SIGTERM are handed to the running jobs; when they have ended, StoppedEarly is raised, and the
    same call resumes later. A second run in the folder while one is busy (also one whose parent was
    killed) raises InputError. Of ``at_once`` jobs side by side each gets its part of the
    processor's threads.
    """
    folder = Path(folder)
    check_names(jobs)
    waiting = in_order(jobs)
    settled: set[str] = set()
    done = Finished(waiting, folder)
    failed: dict[str, JobFailed] = {}
    left: set[str] = set()
    running: dict[Future, Job] = {}
    threads = _threads(at_once)

    def runs(job: Job) -> bool:
        """Whether the job is to run; else the board says why not."""
        if (seconds := done.seconds(job.name)) is not None:
            board.set(job.name, "done before", seconds)
        elif lacking := next((need for need in job.needs if need in failed), None):
            failed[job.name] = failed[lacking]
            board.set(job.name, "not run")
        elif any(need in left for need in job.needs) or leaves_out(job):
            left.add(job.name)
            board.set(job.name, "left out")
        else:
            return True
        return False

    def busy(who: str) -> str:
        return (
            f"another run is busy in {folder} (or a job that it left behind); wait for its end, or "
            "take another folder"
        )

    with (
        locked(folder / ".lock", busy, inherited=True) as lock,  # by every job that we start
        JobBoard([job.name for job in waiting]) as board,
        _stops() as stops,
        ThreadPoolExecutor(at_once) as pool,
    ):
        clear_partials(folder, *(folder / part for part in BEGUN))
        write_graph(folder, waiting, {})
        while running or (waiting and not stops):
            for job in list(waiting):
                if stops or len(running) == at_once:
                    break
                if not settled.issuperset(job.before):
                    continue
                waiting.remove(job)
                if runs(job):
                    running[pool.submit(_run, job, done, board, stops, lock, threads)] = job
                else:
                    settled.add(job.name)
            for ended in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                job = running.pop(ended)
                settled.add(job.name)
                if error := ended.result():
                    failed[job.name] = error
        if stops:
            so_far = f" (failed so far: {', '.join(failed)})" if failed else ""
            raise StoppedEarly(f"stopped{so_far}; run the same command again to resume")
    if failed:
        raise next(iter(failed.values()))


def _threads(at_once: int) -> dict[str, str]:
    """What shares the processor among jobs side by side, as variables of their environment."""
    if at_once == 1:
        return {}
    each = max(cores() // at_once, 1)
    return {"OMP_NUM_THREADS": str(each), "OMP_WAIT_POLICY": "PASSIVE"}


def _run(
    job: Job, done: Finished, board: JobBoard, stops: list[int], lock: int, threads: dict[str, str]
) -> JobFailed | None:
    """Run one job to its end; its JobFailed, or None when it ended well or was stopped."""
    log = done.folder / "logs" / f"{job.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    begun, kills = time.monotonic(), ending.kills_for_memory()
    board.set(job.name, "running")
    running_state = State("running", host=socket.gethostname(), started=now(), updated=now())
    write_state(done.folder, job.name, running_state)

    def ended(state: str, error: str = "", why: str = "") -> None:
        board.set(job.name, state, seconds)
        change: dict[str, Any] = {"state": state, "code": code, "error": error, "why": why}
        write_state(done.folder, job.name, replace(running_state, updated=now(), **change))

    with open(log, "ab") as stream:
        stream.write(os.fsencode(f"$ {shlex.join(job.command)}\n"))
        stream.flush()
        start = stream.tell()
        child = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**threads, **os.environ, **job.env, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # the terminal's Ctrl-C reaches it once, through us
            pass_fds=(lock,),  # the folder stays taken while the job lives, even without us
        )
        code = _wait(child, job, log, start, board, stops)
    seconds = time.monotonic() - begun
    missing = done.missing(job.name)
    if code == 0 and not missing:
        done.mark(job.name, seconds)
        ended("done")
        return None
    if stops or code == STOPPED:
        stops.append(signal.SIGTERM)  # for those beside it, too
        ended("stopped")
        return None
    last = tail(log, start)[-TAIL:]
    why = ending.reason(code, kills) if code else f"it did not write {', '.join(missing)}"
    ended("failed", "\n".join(last), why)
    return JobFailed(
        f"'{job.name}' failed after {duration(seconds)}: {why}. The end of {log}:\n"
        + "\n".join(f"    {line}" for line in last),
        (128 - code if code < 0 else code) or 1,
    )


def _wait(child, job: Job, log: Path, start: int, board: JobBoard, stops: list[int]) -> int:
    """Wait for the child, show its last line, and hand on every stop that comes in."""
    handed_on = 0
    while child.poll() is None:
        board.show(job.name, next(iter(tail(log, start)[-1:]), ""))
        for number in stops[handed_on:]:
            if handed_on < 2:
                child.send_signal(number)
                logging.getLogger("densessl").warning(
                    "stopping '%s'; it saves first (a third time kills it)", job.name
                )
            else:
                child.kill()
            handed_on += 1
        time.sleep(POLL)
    return child.returncode


@contextmanager
def _stops() -> Iterator[list[int]]:
    """A list that grows by one signal number at every signal that asks to stop."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number if number == signal.SIGINT else signal.SIGTERM)

    with handled(note, ALL):
        yield received
