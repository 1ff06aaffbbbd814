"""Full precision for the parts that half precision would break: correspondences and losses."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A block in which autocast is off; the meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def full_precision(function: Callable[..., Result]) -> Callable[..., Result]:
    """Make ``function`` compute in float32 whatever the autocast state around it.

    Floating-point tensor arguments are promoted to float32, or to float64 where any of them is
    float64; other arguments pass as they are. The sum of |z| over 2048 channels overflows float16,
    and a cosine rounded to bfloat16 moves a position across a threshold.
    """

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        floating = [
            value
            for value in (*args, *kwargs.values())
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        ]
        if not floating:
            return function(*args, **kwargs)
        double = any(value.dtype == torch.float64 for value in floating)
        dtype = torch.float64 if double else torch.float32

        def promote(value):
            is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.to(dtype) if is_float else value

        with without_autocast(floating[0].device):
            return function(
                *(promote(value) for value in args),
                **{name: promote(value) for name, value in kwargs.items()},
            )

    return wrapper
