"""What SLURM has queued or running now, as ``squeue`` says."""

import getpass
import shutil
import subprocess
from dataclasses import dataclass

from densessl.core.errors import DenseSSLError, EnvironmentLacks
from densessl.core.names import one_line

from .commands import PATIENCE

FIELDS = "%i|%T|%r|%S"
UNCONFIGURED = "configuration source"  # of squeue's words where there is no slurm.conf
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "TIMEOUT"}
ENDED |= {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "SPECIAL_EXIT"}


@dataclass(frozen=True)
class Queued:
    """A job that SLURM knows: its state (``PENDING``, ``RUNNING``, …) and why it waits."""

    state: str
    reason: str = ""
    starts: str = ""  # the time that SLURM expects, where it does

    @property
    def runs(self) -> bool:
        return self.state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED")


def read_queue(tries: int = 3, patience: float = PATIENCE) -> dict[str, Queued] | None:
    """This user's jobs that have not ended, by number (``123``, in arrays ``123_4``).

    None where there is no SLURM on this machine. Raises DenseSSLError when squeue fails ``tries``
    times, as it does while the controller is busy, or gives no answer in ``patience`` seconds, and
    EnvironmentLacks where this machine does not know any controller, which does not pass by itself.
    """
    if not shutil.which("squeue"):
        return None
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", FIELDS]
    for _ in range(tries):
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=patience)
        except subprocess.TimeoutExpired:
            raise DenseSSLError(f"squeue gave no answer in {patience:g} s") from None
        if answer.returncode == 0:
            return parse(answer.stdout)
    lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {answer.returncode}"
    if UNCONFIGURED in answer.stderr:
        raise EnvironmentLacks(
            f"squeue is here, but knows no SLURM controller ({last}): run this on a login node of "
            "the cluster, or see whether SLURM_CONF is set"
        )
    raise DenseSSLError(f"squeue failed: {last}")


def parse(text: str) -> dict[str, Queued]:
    """The answer of ``squeue --format`` :data:`FIELDS`; DenseSSLError for anything else."""
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.count("|") != FIELDS.count("|"):
            raise DenseSSLError(f"squeue said '{one_line(line)}', which is no job as {FIELDS}")
        number, state, reason, starts = line.split("|")
        if state not in ENDED:
            when = "" if starts in ("N/A", "") or state != "PENDING" else starts
            found[number] = Queued(state, "" if reason == "None" else reason, when)
    return found
