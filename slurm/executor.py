"""Submitit's executor, with a patient sbatch: import only where Submitit is installed."""

import os
import shlex
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit import Job, SlurmExecutor, SlurmJob
from submitit.core.utils import DelayedSubmission

from . import commands


class Executor(SlurmExecutor):
    """Writes Submitit's batch files and pickles; one sbatch is tried again where SLURM is busy.

    ``python`` starts the processes of the job. ``count`` jobs are one array.
    """

    count = 1

    def __init__(self, folder: Path, python: str):
        super().__init__(folder, python=python)

    @classmethod
    def affinity(cls) -> int:
        return 2  # batch files can be written where there is no SLURM

    @property
    def _submitit_command_str(self) -> str:
        """Submitit's own, through the front door: a job runs where the user's modules lie."""
        return f"{self.python} -u -m densessl job {shlex.quote(str(self.folder))}"

    def text(self) -> str:
        """The batch file."""
        array = {"map_count": self.count} if self.count > 1 else {}
        parameters, self.parameters = self.parameters, {**self.parameters, **array}
        try:
            return self._make_submission_file_text(self._submitit_command_str, "")
        finally:
            self.parameters = parameters

    def _internal_process_submissions(
        self, delayed_submissions: Sequence[DelayedSubmission]
    ) -> list[Job[Any]]:
        self.count = len(delayed_submissions)
        self.folder.mkdir(parents=True, exist_ok=True)
        token = uuid.uuid4().hex
        script = self.folder / f".submission_file_{token}.sh"
        pickles = [self.folder / f".{token}_{n}.pkl" for n in range(self.count)]
        try:
            script.write_bytes(os.fsencode(self.text()))  # paths may hold any bytes
            for delayed, pickle in zip(delayed_submissions, pickles, strict=True):
                delayed.set_timeout(self.parameters.get("time") or 0, 0)  # Task counts by itself
                delayed.dump(pickle)
            number = commands.submit(script)
        except BaseException:
            for file in pickles:
                file.unlink(missing_ok=True)
            raise
        names = [f"{number}_{n}" for n in range(self.count)] if self.count > 1 else [number]
        processes = list(range(self._num_tasks()))
        jobs: list[Job] = [
            SlurmJob(folder=self.folder, job_id=name, tasks=processes) for name in names
        ]
        for job, pickle in zip(jobs, pickles, strict=True):  # the job waits for its own
            job.paths.move_temporary_file(pickle, "submitted_pickle")
        jobs[0].paths.move_temporary_file(script, "submission_file")
        return jobs
