"""Networks of images of other than three channels: the first layer alone is another."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

COLOURS = 3  # channels of the images that every library's network takes as it is made


def channels_of(state: Mapping[str, Any], first: str) -> int:
    """The channels of the images that a network with these tensors takes, by its first layer."""
    shape = tuple(getattr(state.get(f"{first}.weight"), "shape", ()))
    return shape[1] if len(shape) > 1 else COLOURS


def with_channels_of(
    wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Any], first: str
) -> dict[str, tuple[int, ...]]:
    """The shapes that are ``wanted`` of a network of three channels, for as many as ``state`` has.

    They stay where its first layer is another one in other ways, too.
    """
    name = f"{first}.weight"
    found = tuple(getattr(state.get(name), "shape", ()))
    shape = wanted.get(name, ())
    same = len(found) == len(shape) > 1 and (found[0], *found[2:]) == (shape[0], *shape[2:])
    return dict(wanted) | ({name: found} if same and shape[1] == COLOURS and found[1] else {})


def take_channels(network: "nn.Module", channels: int) -> "tuple[nn.Conv2d, nn.Conv2d] | None":
    """Put a convolution of so many channels in the place of a network's first one of three.

    Returns the old one and the new one, whose weights are new; None where a network does not begin
    with such a convolution.
    """
    from torch import nn

    for name, old in network.named_modules():
        if not isinstance(old, nn.Conv2d) or old.groups != 1:
            continue
        if old.in_channels != COLOURS:
            return None
        made = type(old)(
            channels,
            old.out_channels,
            kernel_size=old.kernel_size,  # type: ignore[arg-type]
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            dilation=old.dilation,  # type: ignore[arg-type]
            bias=old.bias is not None,
        ).to(old.weight)
        above, _, own = name.rpartition(".")
        setattr(network.get_submodule(above), own, made)
        return old, made
    return None


def renew_first(network: "nn.Module", channels: int) -> bool:
    """Let a fresh network take images of so many channels: the weights of its first layer are drawn
    again, so that its outputs spread as before. False where no convolution of three is first."""
    from torch import nn

    if channels == COLOURS:
        return True
    layers = take_channels(network, channels)
    if layers is None:
        return False
    old, made = layers
    nn.init.normal_(made.weight, std=old.weight.std().item() * (COLOURS / channels) ** 0.5)
    if made.bias is not None and old.bias is not None:
        made.bias.data.copy_(old.bias.data)
    return True


def repeated(values: Sequence[float], channels: int) -> list[float]:
    """A number of each colour for so many channels, as :func:`for_channels` repeats the weights."""
    if channels == 1:
        return [sum(values) / len(values)]
    return [values[channel % len(values)] for channel in range(channels)]


def for_channels(
    backbone: "Mapping[str, Tensor]", first: str, channels: int
) -> "tuple[dict[str, Tensor], list[str]]":
    """The tensors with a convolution ``first`` for so many channels, and what was done to them.

    It has its weights again and again, each in as many parts as it is there, or their sum for one
    channel: the same answer to an image of equal channels.
    """
    import torch

    state, name = dict(backbone), f"{first}.weight"
    weight = state[name]
    if weight.shape[1] == channels:
        return state, []
    if channels == 1:
        state[name] = weight.sum(1, keepdim=True)
    else:
        taken = torch.arange(channels) % weight.shape[1]
        state[name] = weight[:, taken] / torch.bincount(taken)[taken][:, None, None]
    return state, [f"its first convolution of {weight.shape[1]} channels takes {channels} now"]
