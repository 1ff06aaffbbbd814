"""A job that was stopped before its end goes back into the queue."""

import logging
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from densessl.core.errors import DenseSSLError

from .queue import read_queue
from .settings import Cluster
from .state import read_graph

if TYPE_CHECKING:
    from submitit.core.job_environment import JobEnvironment

TRIES = (1, 2, 4, 0)  # seconds after each
logger = logging.getLogger("densessl")


def is_running(slurm_job: str) -> bool:
    """Whether SLURM counts the job as running: not cancelled, its time not up."""
    try:
        queued = (read_queue() or {}).get(slurm_job)
    except DenseSSLError:
        return False
    return queued is not None and queued.state == "RUNNING"


def queue_again(environment: "JobEnvironment", folder: Path, name: str, requeues: int) -> None:
    """Have SLURM queue this job again, under its own number; else submit it anew.

    ``environment`` is Submitit's. Some compute nodes have no scontrol, or may not use it: then the
    job and those that wait for it are submitted again, and ``requeues`` goes on counting. Raises
    DenseSSLError where that fails, too.
    """
    for pause in TRIES:
        try:
            environment._requeue(requeues)
            return
        except FileNotFoundError:
            problem = "there is no scontrol here"
            break
        except (OSError, subprocess.SubprocessError) as error:
            problem = str(error)
            time.sleep(pause)
    from .submission import submit_again  # which submits Tasks, and those import this module

    logger.warning("%s: submitting the job anew", problem)
    jobs, settings = read_graph(folder)
    cluster = Cluster.from_dict(settings)
    os.chdir(cluster.chdir)  # the outputs may be named from there
    number = submit_again(jobs, folder, cluster, name, requeues)
    logger.info("submitted anew as job %s", number)
