"""Which values become black and white in a protocol's images that are not of 8 bits."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from densessl.core.errors import InputError
from densessl.core.text import read_mapping
from densessl.decoding import COLOURS, Range, describe, find_range, is_image, parse, sample
from densessl.decoding.channel_files import image_of
from densessl.decoding.channels import find_range as find_range_of_channels

from . import channels
from .datasets import registered
from .datasets.cityscapes import CityscapesInstances, CityscapesSemantic, frames
from .datasets.custom import Custom
from .datasets.detection import CocoLayout
from .datasets.layouts import LAYOUTS

OPTION = "INPUT.RANGE"
LEAST = 16  # of so many parts of the scale a picture must take one

logger = logging.getLogger("densessl")


def check(cfg) -> None:
    """InputError for a value of INPUT.RANGE, MAX_PIXELS or CHANNELS that cannot be."""
    if cfg.INPUT.RANGE:
        parse(cfg.INPUT.RANGE, OPTION)
    if cfg.INPUT.MAX_PIXELS < 0:
        raise InputError(f"INPUT.MAX_PIXELS is {cfg.INPUT.MAX_PIXELS}; allowed: 0 or more")
    if cfg.INPUT.CHANNELS < 0:
        raise InputError(
            f"INPUT.CHANNELS is {cfg.INPUT.CHANNELS}; allowed: 1 or more, or 0 for the weights'"
        )


def settle(cfg, of_weights: Range | None, files: Callable[[], Sequence[Path]], says: bool):
    """``cfg`` with INPUT.RANGE as two numbers, or empty where no image needs them.

    Given numbers win; then, unless it is 'auto', the range of the weights' own pretraining; else it
    is that of a sample of ``files()``, the training images. ``says``: whether this process logs it.
    """
    given, origin = cfg.INPUT.RANGE, "given"
    bounds = parse(given, OPTION) if given else None
    found = None
    if bounds is None:
        names = list(files())
        count, words = channels.of(cfg), channels.words_of(cfg)
        chosen = [
            image_of(names[index], words)
            for index in sample(len(names), lambda n: os.fspath(names[n]))
        ]
        found = find_range(chosen) if count == COLOURS else find_range_of_channels(chosen, count)
    if bounds is None and not given and of_weights:
        bounds, origin = of_weights, "as in the weights' pretraining"
    elif found:
        bounds = found.range
        origin = (
            f"from {found.files} of {len(chosen)} sampled training images, with values from "
            f"{found.least:g} to {found.greatest:g}"
        )
    if bounds and says:
        logger.info(
            "images that are not of 8 bits: %s become black and white (%s; %s LOW,HIGH sets it)",
            describe(bounds),
            origin,
            OPTION,
        )
    if bounds and says and found and not _shows(bounds, found.range):
        logger.warning(
            "the training images' values are from %g to %g, of which that range shows little; "
            "%s auto takes %s",
            found.least,
            found.greatest,
            OPTION,
            describe(found.range),
        )
    settled = cfg.clone()
    settled.defrost()
    # Not 'LOW,HIGH': that comes back from a YAML file as a tuple.
    settled.INPUT.RANGE = describe(bounds).replace(",", " to ") if bounds else ""
    settled.freeze()
    return settled


def _shows(bounds: Range, own: Range) -> bool:
    """Whether a range keeps most of what images have by their own, and not as a few levels."""
    low, high = max(bounds[0], own[0]), min(bounds[1], own[1])
    kept, width = max(high - low, 0), own[1] - own[0]
    return kept >= width / 2 and kept >= (bounds[1] - bounds[0]) / LEAST


def recorded(cfg) -> list[float]:
    """The settled range as records have it; empty where no image needed one."""
    return list(parse(cfg.INPUT.RANGE, OPTION) or ()) if cfg.INPUT.RANGE else []


def of_trial(model: str | os.PathLike) -> Range | None:
    """The range that a trained model had in its trial, by the config beside it, if there is one."""
    config = Path(model).parent / "config.yaml"
    try:
        held = read_mapping(config, "the config of a trial")["INPUT"]["RANGE"]
    except (InputError, KeyError, TypeError):
        return None
    return parse(held, f"{config}: {OPTION}") if held else None


def training_pictures(cfg, data: Path | Custom) -> Sequence[Path]:
    """The training images that may have more than 8 bits, of a detection protocol's data.

    VOC's and ADE20K's are JPEGs by their layouts, and not among them.
    """
    if isinstance(data, Custom):
        return [Path(file) for file in data.sampled]
    found: list[Path] = []
    for name in cfg.DATASETS.TRAIN:
        layout = LAYOUTS.get(name)
        if isinstance(layout, CocoLayout):
            names = sorted(filter(is_image, os.listdir(data / layout.images)))
            found += [data / layout.images / name for name in names]
        elif layout is None:
            found += registered.pictures(name)
        elif isinstance(layout, CityscapesInstances | CityscapesSemantic):
            found += [frame.image for frame in frames(data, layout.split)]
    return found
