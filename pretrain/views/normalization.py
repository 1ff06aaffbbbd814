"""The mean and the deviation that images are normalised with: ImageNet's, given, or measured."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from densessl.core.errors import InputError
from densessl.decoding import COLOURS, Range, UnreadableImage
from densessl.decoding.channels import range_of, read_channels

from .sources import ImageSource

NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # of RGB in [0, 1]
AUTO = "auto"
SAMPLED = 256  # images that mean, deviation and range are measured on
LEAST = 1e-3  # of a deviation: a channel of one value is left as it is, nearly

Normalization = dict[str, tuple[float, ...]]
logger = logging.getLogger("densessl")


def given_normalization(data: CfgNode) -> Normalization | None:
    """What ``DATA.MEAN`` and ``DATA.STD`` say; None where they are to be measured; InputError.

    Empty: ImageNet's, of three channels; of others there are none, and they are measured.
    """
    words = {"mean": str(data.MEAN).strip(), "std": str(data.STD).strip()}
    if words == {"mean": "", "std": ""}:
        return dict(NORMALIZATION) if data.CHANNELS == COLOURS else None
    if words["mean"] == AUTO and words["std"] in ("", AUTO):
        return None
    found = {}
    for name, text in words.items():
        try:
            values = tuple(float(word) for word in text.strip("()[]").split(","))
        except ValueError:
            values = ()
        fits = len(values) == data.CHANNELS and np.isfinite(values).all()
        if not fits or (name == "std" and min(values) <= 0):
            above = " above 0" if name == "std" else ""
            raise InputError(
                f"DATA.{name.upper()} is '{text}'; allowed: {data.CHANNELS} numbers{above} of "
                "values in [0, 1], as 0.5,0.4 (for both DATA.MEAN and DATA.STD), or auto for both"
            )
        found[name] = values
    return found


def sampled(source: ImageSource) -> Sequence[int]:
    """The images that are looked at, evenly over all."""
    count = min(len(source), SAMPLED)
    return [place * len(source) // count for place in range(count)]


def measured_range(source: ImageSource, data: CfgNode) -> Range | None:
    """The range of images of ``DATA.CHANNELS`` channels; None where all are of 8 bits."""
    seen = []
    for index in sampled(source):
        try:
            values = read_channels(source.sample(index), data.CHANNELS, data.MAX_PIXELS)
        except (UnreadableImage, OSError):  # said where the image is used
            continue
        flat = values.reshape(-1)
        seen.append(flat[:: -(-len(flat) // (1 << 14))])
    return range_of(seen)


def measured_normalization(dataset: Any) -> Normalization:
    """Mean and deviation of each channel over a sample, of values in [0, 1] as ``dataset`` decodes
    them; InputError where no image of it can be read."""
    source = dataset.source
    sums = np.zeros((2, dataset.channels))
    pixels = 0
    for index in sampled(source):
        try:
            values = np.asarray(dataset.values(index), np.float64) / 255
        except (UnreadableImage, OSError):
            continue
        values = values.reshape(-1, dataset.channels)
        sums += values.sum(0), np.square(values).sum(0)
        pixels += len(values)
    if not pixels:
        raise InputError(
            f"{source.where}: no image of a sample can be read, so that DATA.MEAN cannot be "
            f"measured (the first is {source.path(0)}: {dataset.reason(0)})"
        )
    mean = sums[0] / pixels
    std = np.sqrt(np.maximum(sums[1] / pixels - mean**2, 0))
    found = {
        "mean": tuple(round(float(value), 6) for value in mean),
        "std": tuple(round(max(float(value), LEAST), 6) for value in std),
    }
    logger.info(
        "mean %s, deviation %s of each channel, measured on %d images (DATA.MEAN auto)",
        *(" ".join(f"{value:.3f}" for value in found[name]) for name in ("mean", "std")),
        len(sampled(source)),
    )
    return found
