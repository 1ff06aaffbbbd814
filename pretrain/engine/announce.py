"""What a run says before its first step."""

import logging
from typing import Any

import torch
from fvcore.common.config import CfgNode

from densessl.core import distributed
from densessl.core.units import many
from densessl.decoding import describe_left_out

from .. import config
from ..contradictions import contradictions
from ..methods.base import Method
from ..views import ImageSource
from .schedules import scaled_lr

logger = logging.getLogger("densessl")


def announce(
    cfg: CfgNode,
    facts: dict[str, Any],
    source: ImageSource,
    method: Method,
    device: torch.device,
) -> None:
    """Say in a few lines what runs."""
    solver = cfg.SOLVER
    logger.info(
        "%s with %s on %d %s of %s: %d steps (%g epochs of %d%s), %d images a step",
        cfg.METHOD.NAME,
        cfg.BACKBONE.NAME,
        facts["images"],
        "tiles" if cfg.DATA.TILE else "images",
        cfg.DATA.PATH,
        method.steps,
        facts["epochs"],
        method.steps_per_epoch,
        "; by SOLVER.MAX_STEPS, not SOLVER.EPOCHS" if solver.MAX_STEPS else "",
        solver.BATCH_SIZE,
    )
    if source.left_out:
        logger.info("%s", describe_left_out(source.left_out))
    logger.info(
        "learning rate %g = %g x %d/%d (scaled with the batch); %s on %s, AMP %s",
        scaled_lr(solver),
        solver.BASE_LR,
        solver.BATCH_SIZE,
        solver.REFERENCE_BATCH,
        many(distributed.world_size(), "process"),
        device,
        cfg.AMP,
    )
    if solver.ACCUMULATE > 1:
        logger.info(
            "each step in %d parts of %d images: memory for one of them, and batch norm's "
            "statistics are those of a part",
            solver.ACCUMULATE,
            solver.BATCH_SIZE // solver.ACCUMULATE,
        )
    part, images = "step", "SOLVER.BATCH_SIZE"
    if solver.ACCUMULATE > 1:
        part, images = "part", "SOLVER.BATCH_SIZE / SOLVER.ACCUMULATE"
    if method.shuffles and config.normalisation_groups(cfg, distributed.world_size()) == 1:
        logger.warning(
            "all images of a %s are normalised together, so shuffling (MOCO.SHUFFLE) has no "
            "effect and a query can recognise its key by their common statistics; MoCo was "
            "published with groups of 32 images: BACKBONE.NORM split, BACKBONE.GROUP_SIZE "
            "below %s",
            part,
            images,
        )


def remarks(cfg: CfgNode, images: int, method: Method) -> list[str]:
    """What is odd about these options with so many images, a sentence each."""
    found = contradictions(cfg, images)
    if method.keys_kept() > images:
        found.append(
            f"MOCO.QUEUE is {method.keys_kept()}, but there are only {images} images: a full queue "
            "holds keys of every image, and each is pushed away from itself; at most "
            f"{max(images // 4, 1)} would suit"
        )
    return found
