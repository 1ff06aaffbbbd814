"""The range of values that become black and white in images that are not of 8 bits, for a run."""

import logging
import math
from functools import partial
from typing import Any, BinaryIO

import torch
from fvcore.common.config import CfgNode

from densessl.core import distributed, waiting
from densessl.core.errors import InputError
from densessl.decoding import Range, Region, describe, find_range, parse, sample
from densessl.decoding.channel_files import ChannelFiles

from ..views import ImageSource
from ..views.dataset import Batch, ViewDataset
from ..views.normalization import (
    COLOURS,
    Normalization,
    given_normalization,
    measured_normalization,
    measured_range,
)
from .loading import late

BEFORE = (0.0, 65535.0)  # what runs had that know of no range: the upper eight of 16 bits
FEW = 4  # levels of 255; a picture with fewer shows nothing
PALE = 16  # levels of 255; with fewer in every picture the run is warned

logger = logging.getLogger("densessl")


def range_of_run(
    cfg: CfgNode, source: ImageSource, saved: dict[str, Any] | None, device: torch.device
) -> Range | None:
    """The run's range, the same in every process; None where the images are of 8 bits.

    That of its checkpoint ``saved``, else DATA.RANGE, else from a sample of the images.
    """
    if saved and "range" in saved:
        return tuple(saved["range"]) if saved["range"] else None
    given = parse(cfg.DATA.RANGE, "DATA.RANGE")
    if given:
        return given
    if cfg.DATA.CHANNELS != COLOURS:
        return _of_main(measured_range(source, cfg.DATA), device)
    indices = sample(len(source), source.name)
    at = 0

    def opened(index: int) -> str | BinaryIO | Region | ChannelFiles:
        nonlocal at
        at = index
        wait.again()
        return source.sample(index)

    with waiting.wait(cfg.DATA.TIMEOUT, lambda: late(source.path(at), cfg)) as wait:
        found = find_range([partial(opened, index) for index in indices])
    bounds = found.range if found else None
    if bounds and saved:
        bounds = BEFORE
    bounds = _of_main(bounds, device)
    if found:
        whence = "as when the run began" if saved else "DATA.RANGE auto; LOW,HIGH sets it"
        logger.info(
            "%d of %d sampled images are not of 8 bits, with values from %g to %g: %s become black "
            "and white (%s)",
            found.files,
            len(indices),
            found.least,
            found.greatest,
            describe(bounds),
            whence,
        )
    return bounds


def normalization_of_run(
    cfg: CfgNode, dataset: ViewDataset, saved: dict[str, Any] | None, device: torch.device
) -> Normalization:
    """The run's mean and deviation, the same in every process: those of its checkpoint ``saved``,
    else DATA.MEAN's and DATA.STD's, measured where they are ``auto``."""
    if saved and "normalization" in saved:
        return {name: tuple(saved["normalization"][name]) for name in ("mean", "std")}
    if (given := given_normalization(cfg.DATA)) is not None:
        return given
    found = measured_normalization(dataset)
    own = torch.tensor([found["mean"], found["std"]], dtype=torch.float64, device=device)
    mean, std = distributed.gather(own[None])[0].tolist()
    return {"mean": tuple(mean), "std": tuple(std)}


def _of_main(bounds: Range | None, device: torch.device) -> Range | None:
    """The first process's: a file may be unreadable on one machine alone."""
    own = torch.tensor([bounds or (math.nan, math.nan)], dtype=torch.float64, device=device)
    low, high = distributed.gather(own)[0].tolist()
    return None if math.isnan(low) else (low, high)


def require_contrast(batch: Batch, source: ImageSource, bounds: Range | None) -> None:
    """Raise InputError, in every process, when each image of the global batch is one colour; log a
    warning when each is nearly so."""
    pixels = batch.image.flatten(3)  # [B, V, 3, pixels]
    low, high = pixels.amin(3), pixels.amax(3)
    levels = int((high - low).max())
    shows_something, has_contrast = (distributed.any_rank(levels >= n) for n in (FEW, PALE))
    if has_contrast:
        return
    values = f"{int(low.min())} to {int(high.max())} of 255"
    hint = "look at some of them, or run densessl audit"
    if bounds is not None:
        hint = (
            f"{describe(bounds)} become black and white in images that are not of 8 bits: set "
            "DATA.RANGE auto, or DATA.RANGE LOW,HIGH"
        )
    if shows_something:
        logger.warning(
            "%s: every image of the first batch is nearly one colour (%s, less than %d apart); %s",
            source.where,
            values,
            PALE,
            hint,
        )
        return
    raise InputError(
        f"{source.where}: every image of the first batch is one colour ({values}, less than {FEW} "
        f"apart; the first is {source.path(int(batch.index[0]))}). There is nothing to learn from "
        f"them; {hint}"
    )
