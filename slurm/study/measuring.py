"""``densessl study --measure ARM``: all trials of an arm in one process, those of a draw together.

A graph on one machine calls it. A trial that fails keeps none of the others from running, and a
pretraining that is not there leaves its own trials out.
"""

import logging
import shutil
from pathlib import Path

from densessl.core import log
from densessl.core.errors import DenseSSLError, InputError, StoppedEarly, unknown
from densessl.core.files import write_json
from densessl.d2_transfer import main as transfer

from .graph import Graph, measured, pretraining
from .model import PRETRAINED

logger = logging.getLogger("densessl")


def measure(graph: Graph, name: str, folder: Path) -> int:
    """Run the trials of an arm that are not finished.

    Raises StoppedEarly as a trial does, and the first error once all others have run.
    """
    arms = {arm.name: arm for arm in graph.plan.arms}
    if name not in arms:
        raise unknown("arm", name, arms, "--measure")
    arm, failed, done = arms[name], [], []
    for seed in range(arm.pretrainings or graph.plan.seeds):
        weights = pretraining(folder, name, seed) / "backbone_final.pth"
        if arm.kind == PRETRAINED and not weights.is_file():
            logger.warning("%s: there is no %s; its trials are left out", name, weights)
            continue
        for job in graph.trials(arm, seed):
            try:
                transfer.main(list(map(str, job.argv[1:])))
                done.append(job.name)
            except StoppedEarly:
                raise
            except DenseSSLError as error:
                failed.append(error)
                log.setup()
                logger.error("%s: %s", job.name, error)
        shutil.rmtree(graph.features(arm, seed), ignore_errors=True)
    if failed:
        raise failed[0]
    if not done:
        raise InputError(f"no pretraining of {name} has finished: there is nothing to measure")
    write_json(measured(folder, name), done)
    return 0
