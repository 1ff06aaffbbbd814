"""SLURM's commands, tried again where the cluster's controller is busy or out of reach."""

import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from densessl.core.errors import DenseSSLError, InputError, StoppedEarly

BACKOFF = (1, 2, 4, 8, 16)  # seconds between the tries
PATIENCE = 120  # seconds for one answer
BUSY = re.compile(  # what passes by itself; all else is a refusal
    r"timed? ?out|unable to contact|connect(ion)? (failure|refused|reset)|try again|temporarily|"
    r"zero bytes|communication|transport|send/recv|busy|network is unreachable",
    re.IGNORECASE,
)


class Refused(DenseSSLError):
    """A command of SLURM said no; the message is its own words."""


class Unanswered(Exception):
    """One try failed; the message is what the command said."""


def submit(script: Path) -> str:
    """Give a batch script to sbatch; SLURM's number of the job.

    A failure may hide a success (the answer was lost): before each further try the queue is asked
    for the script, so that nothing is submitted twice. Raises InputError with sbatch's words where
    it refuses, and StoppedEarly when it was busy every time.
    """
    try:
        answer = _patiently(
            "sbatch", lambda: _once(("sbatch", str(script))), lambda: _number_of(script)
        )
    except Refused as error:
        raise InputError(f"sbatch refused: {error} (the file is {script})") from None
    if found := re.search(r"job (\d+)", answer):
        return found[1]
    raise DenseSSLError(
        f"sbatch said '{answer.strip()}', which names no job (the file is {script})"
    )


def _patiently(
    name: str, once: Callable[[], str], otherwise: Callable[[], str | None] = lambda: None
) -> str:
    """The answer of the first try that has one, or of ``otherwise`` after a failed one.

    Where ``otherwise`` cannot tell, it is asked again before anything else is tried.
    """
    ask_first = False
    for delay in (*BACKOFF, None):
        try:
            if ask_first and (answer := otherwise()) is not None:
                return answer
            ask_first = True
            return once()
        except Unanswered as failed:
            error = str(failed)
        if not BUSY.search(error):
            raise Refused(error)
        if delay is None:
            break
        logging.getLogger("densessl").warning("%s: %s; again in %d s", name, error, delay)
        time.sleep(delay)
    with suppress(Unanswered):  # else the job, if it was taken after all, finds no task and ends
        if (answer := otherwise()) is not None:
            return answer
    raise StoppedEarly(
        f"{name} failed {len(BACKOFF) + 1} times ({error}); what was done before is kept: run the "
        "same command again later to resume"
    )


def _once(command: Sequence[str]) -> str:
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise Unanswered(f"timed out after {PATIENCE} s") from None
    except OSError as error:
        raise Refused(f"{command[0]}: {error.strerror}") from None
    if ran.returncode:
        lines = [line.strip() for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
        raise Unanswered("; ".join(lines) or f"exit code {ran.returncode}")
    return ran.stdout


def _number_of(script: Path) -> str | None:
    """``job NUMBER`` of the one submitted with this script; None where the queue has none.

    Raises Unanswered where squeue does not tell.
    """
    answer = _once(("squeue", "--noheader", f"--user={os.getuid()}", "--format=%F|%o"))
    numbers = (line.split("|")[0] for line in answer.splitlines() if line.endswith(f"|{script}"))
    return next((f"job {number}" for number in numbers), None)


@contextmanager
def outside_of_a_job() -> Iterator[None]:
    """Hide what SLURM told this job of itself, which sbatch would take for options of a new one."""
    own = ("SLURM_", "SLURMD_", "SRUN_") if "SLURM_JOB_ID" in os.environ else ()
    hide = {"SUBMITIT_EXECUTOR", "SUBMITIT_FOLDER"}
    hide |= {name for name in os.environ if name.startswith(own or " ")} - {"SLURM_CONF"}
    hidden = {name: os.environ.pop(name) for name in hide if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
