"""What Submitit starts on a node, once a process: it runs the job's own command and answers SLURM.

The command is that of one machine, in a process of its own, so that nothing is ever saved in the
middle of a signal's handler. SLURM's signal before a time limit or a preemption (SIGUSR2) and its
SIGTERM become one SIGTERM to the command, which saves at its next step and ends with 75; then the
job's first process has SLURM queue the job again. Every other end is written into the run folder
by the process that met it first.
"""

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from densessl.core import names
from densessl.core.errors import InputError, StoppedEarly
from densessl.core.files import read_json, write_json
from densessl.core.lines import tail
from densessl.core.progress import duration

from . import ending, lock, requeue
from .graph import Finished, Job
from .local import TAIL
from .state import State, is_cancelled, now, read_state, read_submission, write_state
from .stops import JobStops

if TYPE_CHECKING:
    from submitit.core.job_environment import JobEnvironment

STOPPED = StoppedEarly.exit_code
STOPPED_CODES = (STOPPED, -signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
SHARE = 0.8  # of the time before the limit that the command has for saving
PATIENCE = 60  # seconds that the outputs of earlier jobs may take to appear on a network disk
SUPERSEDED = 1  # the exit code of a job whose place a later submission has taken

logger = logging.getLogger("densessl")


@dataclass
class Task:
    """One job of a run folder, to be called in each of its processes on the cluster.

    ``jobs`` are the job and all before it, ``submitted`` the time in its
    :class:`slurm.state.Submission`, ``python`` the interpreter it was submitted with. It is asked
    to save ``signal_delay`` seconds before its time limit and queued again, at most
    ``max_requeues`` times; ``requeues`` were before this submission.
    """

    folder: str
    name: str
    jobs: tuple[Job, ...]
    submitted: str
    python: str
    signal_delay: int = 120
    max_requeues: int = 100
    requeues: int = 0

    def __call__(self) -> None:
        """Run the job to its end; leaves with its exit code unless that is 0."""
        from submitit import JobEnvironment

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        if code := _Run(self, JobEnvironment()).to_its_end():
            sys.exit(code)


def main(argv: Sequence[str]) -> int:
    """``densessl job FOLDER``, which batch files call: the task that lies there for this job."""
    from submitit.core.submission import process_job

    process_job(argv[0])
    return 0


class _Run:
    """One process's part in one run of a job."""

    def __init__(self, task: Task, environment: "JobEnvironment"):
        self.task, self.environment = task, environment
        self.folder = Path(task.folder)
        self.finished = Finished(task.jobs, task.folder)
        self.job = self.finished.jobs[task.name]
        self.rank: int = environment.global_rank
        number = getattr(signal, f"SIG{environment.USR_SIG}")
        self.stops = JobStops(number, task.signal_delay * SHARE)
        attempt = f"{environment.job_id}.{os.environ.get('SLURM_RESTART_COUNT', 0)}"
        self.verdict = self.folder / "state" / "ends" / task.name / attempt
        suffix = f".{self.rank}" if self.rank else ""
        self.log = self.folder / "logs" / f"{task.name}{suffix}.txt"
        self.state = State("running", environment.job_id, socket.gethostname(), now())
        self.kills = ending.kills_for_memory()

    def to_its_end(self) -> int:
        """Run the job; the exit code of this process."""
        self.stops.listen()
        last = read_submission(self.folder, self.task.name)
        if last is not None and last.submitted > self.task.submitted:
            logger.warning("'%s' was submitted again, as job %s", self.task.name, last.slurm_job)
            return SUPERSEDED
        if self.finished.seconds(self.task.name) is not None:
            logger.info("'%s' is finished already", self.task.name)
            return 0
        first = self.rank == 0
        lock_file = self.folder / "state" / f"{self.task.name}.lock"
        try:
            with lock.held(lock_file, self.environment.job_id) if first else nullcontext():
                return self._locked()
        except InputError as error:  # another run has the lock, and the state is its own
            logger.error("%s", error)
            return error.exit_code

    def _locked(self) -> int:
        if self.finished.seconds(self.task.name) is not None:  # by the run that had the lock
            return 0
        begun = time.monotonic()
        self._begin()
        if is_cancelled(self.folder):  # while it was about to be queued again
            return self._end_cancelled()
        self._await_inputs()
        code, start = self._run_command()
        if code in STOPPED_CODES and not self.stops.received:
            time.sleep(1)  # SLURM may have signalled the command before it signals us
        if self.rank:
            return self._end_of_other(code, start)
        return self._end_of_first(code, start, time.monotonic() - begun)

    def _begin(self) -> None:
        """Count where this run stands, and say that it runs."""
        before = read_state(self.folder, self.task.name)
        self.state.requeues = self.task.requeues
        if before is not None and before.slurm_job == self.environment.job_id:
            by_slurm = before.state != "requeued"  # a node failed, or SLURM preempted the job
            self.state.requeues = before.requeues
            self.state.restarts = before.restarts + by_slurm
        if self.rank == 0:
            for old in self.verdict.parent.glob("*"):
                if not old.name.startswith(self.verdict.name):
                    old.unlink(missing_ok=True)
            self._write(self.state)
            with suppress(OSError, ValueError, TypeError):  # another process may have failed by now
                self._write(State(**read_json(self.verdict)))

    def _await_inputs(self) -> None:
        """Wait until earlier jobs are seen to be finished, with their outputs: network disks show
        both late, and what this job leaves is known by what they left."""
        deadline = time.monotonic() + PATIENCE
        while any(self.finished.seconds(need) is None for need in self.job.needs):
            if self.stops.received or time.monotonic() > deadline:
                return
            time.sleep(1)

    def _run_command(self) -> tuple[int, int]:
        """The command's exit code (negative: the signal that ended it); where its log begins."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = self._command()
        with open(self.log, "ab", buffering=0) as stream:
            with suppress(OSError):  # a full disk is for the command to meet, and to say
                stream.write(os.fsencode(f"$ {shlex.join(command)}\n"))
            start = os.fstat(stream.fileno()).st_size
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                preexec_fn=self.stops.for_command(),
            )
            self.stops.follow(child)
            return child.wait(), start

    def _command(self) -> list[str]:
        program, argv = self.job.program, [str(part) for part in self.job.argv]
        if program and program[0] == self.task.python:
            program = (sys.executable, *program[1:])  # a container has another one
        if self.job.resources.per == "node" and self.environment.num_nodes > 1:
            address, port = self._rendezvous()
            argv[1:1] = [
                "--num-machines",
                str(self.environment.num_nodes),
                "--machine-rank",
                str(self.environment.node),
                "--dist-url",
                f"tcp://{address}:{port}",
            ]
        return [*program, *argv]

    def _environment(self) -> Mapping[str, str]:
        values = {**os.environ, **self.job.env, "PYTHONUNBUFFERED": "1"}
        if self.job.resources.per == "gpu" and self.environment.num_tasks > 1:
            address, port = self._rendezvous()
            nodes = self.environment.num_nodes
            values |= {
                "MASTER_ADDR": address,
                "MASTER_PORT": str(port),
                "RANK": str(self.rank),
                "WORLD_SIZE": str(self.environment.num_tasks),
                "LOCAL_RANK": str(self.environment.local_rank),
                "LOCAL_WORLD_SIZE": str(self.environment.num_tasks // nodes),
            }
            values.setdefault("OMP_NUM_THREADS", "1")  # as torchrun
        return values

    def _rendezvous(self) -> tuple[str, int]:
        """Where the processes meet: the same address and port in each."""
        from submitit.helpers import TorchDistributedEnvironment

        rendezvous = TorchDistributedEnvironment()
        return rendezvous.master_addr, rendezvous.master_port

    def _end_of_other(self, code: int, start: int) -> int:
        """The exit code of a process that is not the first: a failure that came first is its own
        to tell; once all were asked to stop, the first process decides."""
        if code == 0 or code == STOPPED or self.stops.received:
            return 0
        return self._fail(code, self._why(code), start)

    def _end_of_first(self, code: int, start: int, seconds: float) -> int:
        missing = self.finished.missing(self.task.name)
        if code == 0 and not missing:
            try:
                self.finished.mark(self.task.name, seconds)
            except OSError as error:
                return self._fail(1, f"done, but that could not be noted: {error}", start)
            self._settle(replace(self.state, state="done", code=0))
            self._say(f"done after {duration(seconds)}")
            return 0
        if code == 0:
            return self._fail(1, f"it did not write {', '.join(missing)}", start)
        asked = self.stops.received
        polite = code in STOPPED_CODES if asked else code == STOPPED
        if not polite:
            return self._fail(code, self._why(code), start)
        if asked == self.stops.number:
            return self._come_back(start)
        if asked and requeue.is_running(self.environment.job_id):  # nobody cancelled it
            if code == STOPPED or self.environment.num_tasks == 1:
                return self._come_back(start)  # preempted: who leaves now counts as failed
            why = "SLURM ended it, as it does when another process has died without a word"
            return self._fail(code, why, start)
        if self._settle(replace(self.state, state="stopped", code=STOPPED)):
            self._say("stopped; 'densessl submit retry' resumes")
        return STOPPED

    def _come_back(self, start: int) -> int:
        """Have the job queued again, unless that is forbidden or too often."""
        if is_cancelled(self.folder):
            return self._end_cancelled()
        count, most = self.state.requeues + 1, self.task.max_requeues
        if count > most:
            why = (
                f"it was stopped {count} times before its end, and {most} times it may be queued "
                "again (max_requeues); 'densessl submit retry' counts from 0"
            )
            return self._fail(STOPPED, why, start)
        if self._settle(replace(self.state, state="requeued", requeues=count)):
            self._say(f"stopped; to be queued again ({count} of at most {most} times)")
            try:
                requeue.queue_again(self.environment, self.folder, self.task.name, count)
            except Exception as error:
                return self._fail(STOPPED, f"it could not be queued again: {error}", start, True)
        return STOPPED

    def _end_cancelled(self) -> int:
        if self._settle(replace(self.state, state="stopped", code=STOPPED)):
            self._say("stopped: 'densessl cancel' was called")
        return STOPPED

    def _why(self, code: int) -> str:
        return f"process {self.rank}: {ending.reason(code, self.kills)}"

    def _fail(self, code: int, why: str, start: int, settled: bool = False) -> int:
        """Write the failure, unless another process's came first; the exit code."""
        code = (128 - code if code < 0 else code) or 1
        last = "\n".join(tail(self.log, start)[-TAIL:])
        recorded = read_state(self.folder, self.task.name) if self.rank else None  # by the first
        state = replace(recorded or self.state, state="failed", code=code, error=last, why=why)
        self._say(f"failed: {why}")
        self._write(state) if settled else self._settle(state)
        return code

    def _settle(self, state: State) -> bool:
        """Write how this run ended if no process did so before; whether it is ours to say."""
        state = replace(state, updated=now())
        own = self.verdict.with_name(f"{self.verdict.name}.{self.rank}")
        try:
            write_json(own, asdict(state))
            try:
                os.link(own, self.verdict)  # whole or not there, and only for the first
            except FileExistsError:
                return False
            finally:
                own.unlink()
        except OSError as error:  # a full disk, or one without links
            logger.error("%s: %s", self.verdict, error)
        self._write(state)
        return True

    def _write(self, state: State) -> None:
        try:
            write_state(self.folder, self.task.name, replace(state, updated=now()))
        except OSError as error:  # a full disk must not hide the job's own end
            logger.error("the state of '%s' could not be written: %s", self.task.name, error)

    def _say(self, text: str) -> None:
        """A line for people, at the end of the job's log."""
        logger.info("'%s' %s", self.task.name, text)
        with (
            suppress(OSError),
            open(self.log, "a", encoding="utf-8", errors=names.ERRORS) as stream,
        ):
            stream.write(f"{datetime.now():%H:%M:%S} SLURM job {self.state.slurm_job}: {text}\n")
