"""A network's tensors, all of them and nothing else, as plain float32 on the CPU."""

import collections
from typing import Any

from densessl.core.errors import InputError

from . import keys
from .channels import with_channels_of
from .without_torch import full, library_of


def complete(
    state: dict[str, Any],
    wanted: dict[str, tuple[int, ...]],
    first: str,
    title: str,
    variants: str,
    where: str,
    notes: list[str],
) -> tuple[dict[str, Any], int]:
    """The tensors of exactly the ``wanted`` names and shapes, and how many counters were added.

    The layer ``first`` may take images of any number of channels.
    ``title`` tells people which network that is, ``variants`` which ones it is not; ``notes`` gets
    a line on every change of type. Raises InputError that names the tensors at fault.
    """
    wanted = with_channels_of(wanted, state, first)
    added = [n for n in wanted if n not in state and n.endswith(keys.COUNTER)]
    missing = [name for name in wanted if name not in state and name not in added]
    extra = [name for name in state if name not in wanted]
    other = {
        name: _shape(state[name])
        for name, shape in wanted.items()
        if name in state and _shape(state[name]) != shape
    }
    wrong = [f"{name} {shape} instead of {wanted[name]}" for name, shape in other.items()]
    for what, names in (("lacks", missing), ("also holds", extra), ("has other shapes:", wrong)):
        if names:
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            raise InputError(
                f"{where} is like a {title} but {what} {', '.join(names[:6])}{more}; {variants}"
            )
    tensors = {}
    for name in wanted:
        tensors[name] = plain(state[name], name, where) if name in state else full((), 0, "int64")
    types = collections.Counter(
        str(t.dtype).removeprefix("torch.")
        for name, t in state.items()
        if name in wanted and not name.endswith(keys.COUNTER)
    )
    del types["float32"]
    notes += [
        f"{count} tensors were {dtype}, and are float32 now" for dtype, count in types.items()
    ]
    return tensors, len(added)


def plain(tensor: Any, name: str, where: str) -> Any:
    """The tensor as contiguous float32 (or int64) on the CPU; InputError for NaN or infinity."""
    library = library_of(tensor)
    if library is None:
        raise InputError(f"{where}: {name} is a {type(tensor).__name__}, not a tensor")
    if name.endswith(keys.COUNTER):
        return tensor.detach().cpu().to(library.int64).contiguous()
    if not tensor.is_floating_point():
        raise InputError(f"{where}: {name} has type {tensor.dtype}; weights are floating point")
    tensor = tensor.detach().cpu().to(library.float32).contiguous()
    if not all(library.isfinite(extreme) for extreme in library.aminmax(tensor)):  # NaN is both
        raise InputError(f"{where}: {name} holds NaN or infinity; the training has diverged")
    return tensor


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(getattr(tensor, "shape", ()))
