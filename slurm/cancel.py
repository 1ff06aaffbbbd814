"""``densessl cancel DIR``: take the jobs of a folder out of the queue."""

import subprocess
from pathlib import Path

from densessl.core import log
from densessl.core.errors import DenseSSLError, EnvironmentLacks, InputError
from densessl.core.parser import Parser

from . import state
from .queue import read_queue


def main(argv: list[str]) -> int:
    """Take the jobs of a folder out of the queue, and stop those that run; they save first.

    'densessl submit retry DIR', or the command that submitted them, resumes with them.
    """
    parser = Parser(prog="densessl cancel", description=main.__doc__)
    parser.add_argument("folder", metavar="DIR", help="of a submission")
    folder = Path(parser.parse_args(argv).folder)
    jobs, _ = state.read_graph(folder)
    submissions = (state.read_submission(folder, job.name) for job in jobs)
    submitted = [each for each in submissions if each]
    if not submitted:
        raise InputError(
            f"the jobs of {folder} ran on this machine, not on a cluster; a run ends by Ctrl-C"
        )
    queue = read_queue()
    if queue is None:
        raise EnvironmentLacks(
            f"there is no squeue here, so no jobs of {folder} to cancel; log in where SLURM is"
        )
    state.cancel(folder)  # first: what stops now must not queue itself again
    numbers = [each.slurm_job for each in submitted if each.slurm_job in queue]
    if numbers:
        answer = subprocess.run(["scancel", *numbers], capture_output=True, text=True)
        if answer.returncode:
            raise DenseSSLError(f"scancel failed: {answer.stderr.strip()}")
    log.setup().info("%s: %d jobs cancelled", folder, len(numbers))
    return 0
