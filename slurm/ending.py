"""Why a job ended as it did, in words: its exit code, the kernel's and SLURM's own words."""

import re
import signal
from pathlib import Path

from densessl.core.lines import tail

COUNTERS = Path("/proc/vmstat")
MEMORY = re.compile(r"oom.?kill|out.of.memory", re.IGNORECASE)
STEPD = re.compile(r"slurmstepd: error: [* ]*(.*?)[* ]*$")  # SLURM's own line in a job's log


def kills_for_memory() -> int | None:
    """How many processes the kernel has killed for lack of memory; None where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", COUNTERS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def reason(code: int, kills_before: int | None = None) -> str:
    """What a command's exit code says (negative: the signal that ended it).

    ``kills_before``: :func:`kills_for_memory` when it began. One that was killed meanwhile is
    named; whether it was of this command the kernel does not tell.
    """
    number = -code if code < 0 else code - 128 if code > 128 else 0
    try:
        name = signal.Signals(number).name if number else ""
    except ValueError:
        name = f"signal {number}" if code < 0 else ""
    if code < 0:
        text = f"killed by {name}"
    else:
        text = f"exit code {code}" + (f", as of one killed by {name}" if name else "")
    kills = kills_for_memory()
    if kills is not None and kills_before is not None and kills > kills_before:
        text += "; meanwhile the kernel killed a process of this machine for lack of memory"
    return text


def slurms_word(folder: Path, slurm_job: str) -> str:
    """What SLURM itself wrote into a job's log, its word on memory before all others; or empty.

    Example: "JOB 7 ON node3 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT".
    """
    lines = tail(folder / "cluster" / "submitit" / f"{slurm_job}_0_log.err")
    words = [found[1] for found in map(STEPD.search, lines) if found]
    on_memory = [word for word in words if MEMORY.search(word)]
    return next(iter([*on_memory, *reversed(words)]), "")
