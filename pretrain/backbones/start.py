"""Weights of others to start from: whatever ``densessl convert`` reads, for the images fed here.

The network was trained on images of some normalisation and channel order; here it gets RGB and
ImageNet's. Both are linear in the image, so its first convolution takes the difference.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from densessl.core.errors import InputError
from densessl.decoding import COLOURS
from densessl.weight_files import images
from densessl.weight_files.channels import for_channels
from densessl.weight_files.images import words
from densessl.weight_files.recognise import Source, first_layer, from_file
from densessl.weight_files.timm_networks import is_timm

NEAR = 1e-4  # of values of images in [0, 1]: more apart is another normalisation


@dataclass(frozen=True)
class Start:
    """A backbone's tensors under the names of ``build_backbone``, its name there, and one line on
    what they are."""

    state: dict[str, Tensor]
    summary: str
    network: str


def starting_state(
    path: str,
    name: str,
    normalization: dict[str, Any],
    where: str,
    channels: int = COLOURS,
    named: str = "BACKBONE.NAME",
) -> Start:
    """The backbone ``name`` in a file, for RGB images in [0, 1] of that mean and std; with an empty
    name the one that the file holds.

    Of other than three ``channels`` the first convolution has its weights again and again, each in
    as many parts as it is there, or their sum for one: the same answer to an image of equal
    channels. How the images of those weights were normalised does not count then.

    Raises InputError, which begins with ``where``, for a file that ``densessl convert`` would not
    take either and for another network; ``named`` is the option that gives its name.
    """
    try:
        _, found = from_file(path, name if is_timm(name) else "auto")
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix(str(path)).lstrip(': ')}") from None
    if found.network != (name or found.network):
        raise InputError(
            f"{where} holds a {found.title}, which does not fit a {name}; give {named} "
            f"{found.network}"
        )
    if found.channels not in (COLOURS, channels):
        raise InputError(
            f"{where} takes images of {found.channels} channels; allowed with DATA.CHANNELS "
            f"{channels}: weights of {' or '.join(map(str, sorted({COLOURS, channels})))}"
        )
    if channels == COLOURS:
        state, changes = _for_our_images(found, normalization)
    else:
        state, changes = for_channels(found.backbone, first_layer(found.network), channels)
    if found.stride_in_1x1:
        changes.append(
            "its network has the stride in the 1x1 convolutions, ours in the 3x3: the first steps "
            "make up for that"
        )
    summary = f"{found.summary}: {found.title}, images {images.words(found.images)}"
    summary += f", {images.source(found.images.by)}"
    return Start(state, "; ".join([summary, *changes]), found.network)


def _for_our_images(
    found: Source, normalization: dict[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors for images that are normalised in another way, and what was done to them."""
    state, theirs, changes = dict(found.backbone), found.normalization, []
    first = f"{first_layer(found.network)}.weight"
    mean, std = (torch.tensor(theirs[key], dtype=torch.float64) for key in ("mean", "std"))
    if theirs["channel_order"] == "BGR":
        state[first], mean, std = state[first].flip(1), mean.flip(0), std.flip(0)
        changes.append("its first convolution takes RGB now")
    our_mean, our_std = (
        torch.tensor(normalization[key], dtype=torch.float64) for key in ("mean", "std")
    )
    if torch.allclose(mean, our_mean, 0, NEAR) and torch.allclose(std, our_std, 0, NEAR):
        return state, changes
    weight = state[first].double()
    state[first] = (weight * (our_std / std)[:, None, None]).float()
    # Ours is theirs plus a constant, which the convolution turns into one of each channel.
    constant = (weight * ((our_mean - mean) / std)[:, None, None]).sum((1, 2, 3))
    bias = first.removesuffix("weight") + "bias"
    if bias in state:
        state[bias] = (state[bias].double() + constant).float()
    elif "bn1.running_mean" in state:
        # but within the padding, where the image is 0 and has no constant
        state["bn1.running_mean"] = (state["bn1.running_mean"].double() - constant).float()
    else:
        raise InputError(
            f"{found.title} takes images of another mean ({words(found.images)}), and its first "
            "layer has no bias or batch norm that is known here and could take the difference"
        )
    changes.append("its first layer takes ImageNet's mean and deviation now")
    return state, changes
