"""One call of sbatch: a job, or several that are alike, in Submitit's words."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import densessl

from .graph import Job
from .settings import Settings, minutes

if TYPE_CHECKING:  # Submitit may not be installed
    from .executor import Executor

ROOT = Path(densessl.__file__).parents[1]  # for jobs to import it
NAME = "densessl"  # before the names of jobs, in squeue


@dataclass(frozen=True)
class JobBatch:
    """One call of sbatch: jobs that differ only in what they run (more than one: an array)."""

    jobs: tuple[Job, ...]
    settings: Settings
    depends: str  # sbatch's words for what it waits for

    @property
    def name(self) -> str:
        first = self.jobs[0]
        return first.array if len(self.jobs) > 1 else first.name

    def executor(self, folder: Path, chdir: str) -> "Executor":
        """Submitit's executor for it, which keeps its files below ``folder``."""
        from .executor import Executor

        python = self.settings.python or shlex.quote(sys.executable)
        starts = " ".join(filter(None, (self.settings.container, python)))
        made = Executor(folder / "cluster" / "submitit", starts)
        made.update_parameters(**parameters(self, chdir))
        made.count = len(self.jobs)
        return made


def parameters(batch: JobBatch, chdir: str) -> dict[str, object]:
    """The batch's resources and settings as Submitit's SlurmExecutor names them."""
    resources, settings = batch.jobs[0].resources, batch.settings
    per_gpu = resources.per == "gpu" and resources.gpus > 0
    tasks = resources.gpus if per_gpu else 1
    cpus = settings.cpus_per_gpu * (1 if per_gpu else max(1, resources.gpus))
    more: dict[str, object] = {"chdir": chdir, "requeue": True, **settings.extra}
    if batch.depends:
        more["kill-on-invalid-dep"] = "yes"
    gpus = f"{settings.gpu_type}:{resources.gpus}" if settings.gpu_type else str(resources.gpus)
    wanted: dict[str, object] = {
        "job_name": f"{NAME}-{batch.name}",
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "time": minutes(settings.time) if settings.time else None,
        "mem": f"{round(settings.mem_gb * 1024)}M" if settings.mem_gb else None,
        "nodes": resources.nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cpus,
        "dependency": batch.depends,
        "signal_delay_s": settings.signal_delay,
        "array_parallelism": settings.array_parallelism,
        "setup": _setup(settings),
        # srun does not take the CPUs of a task from sbatch since SLURM 22.05
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}"],
        "additional_parameters": more,
        "wckey": None,
    }
    if resources.gpus and settings.gpu_request == "gres":
        wanted["gres"] = f"gpu:{gpus}"
    elif resources.gpus and settings.gpu_request == "gpus-per-node":
        wanted["gpus_per_node"] = gpus
    keep_none = ("time", "wckey")  # Submitit has values of its own for these
    return {key: value for key, value in wanted.items() if value or key in keep_none}


def _setup(settings: Settings) -> list[str]:
    """The lines before the program: modules, the user's own, and where our modules are."""
    lines = [f"module load {shlex.quote(name)} || exit 1" for name in settings.modules]
    path = f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"'
    return [*lines, *settings.setup, path]
