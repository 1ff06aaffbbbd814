"""What DATA says about loader processes, and whether this machine can have them."""

import os

from fvcore.common.config import CfgNode

from densessl.core import distributed, limits
from densessl.core.errors import EnvironmentLacks
from densessl.core.loader import GRACE, Options
from densessl.core.names import one_line

TENSORS = 8  # of a Batch


def options_of(cfg: CfgNode) -> Options:
    """What DATA says about loading. One process alone can save in the middle of a wait; of several
    each goes on to the step that the others are in, if its batch comes soon."""
    grace = GRACE if distributed.world_size() > 1 else 0.0
    return Options(cfg.DATA.WORKERS, cfg.DATA.TIMEOUT, grace)


def late(name: str, cfg: CfgNode) -> EnvironmentLacks:
    """The error for an image that this process itself waits for."""
    return EnvironmentLacks(
        f"{one_line(name)} has not been read within {cfg.DATA.TIMEOUT:g} s (DATA.TIMEOUT; 0: no "
        "limit); see whether its disk or network mount answers"
    )


def check_machine(cfg: CfgNode) -> None:
    """Raise EnvironmentLacks where shared memory or file handles cannot hold the batches."""
    views = 2 * cfg.VIEWS.SIZE**2 + cfg.VIEWS.LOCAL_CROPS * cfg.VIEWS.LOCAL_SIZE**2
    images = cfg.SOLVER.BATCH_SIZE // distributed.world_size()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size()))
    limits.check_loading(3 * views * images, TENSORS, cfg.DATA.WORKERS, here, "DATA.WORKERS")
