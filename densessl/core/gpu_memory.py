"""A GPU whose memory does not suffice: one message, with what would."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .errors import EnvironmentLacks

# What PyTorch says of it, before several sentences on its allocator.
_NUMBERS = re.compile(r"Tried to allocate .*?[iB]\.|GPU \d+ has a total capacity of .*? is free\.")


@contextmanager
def enough(where: Callable[[], str], fixes: Callable[[], list[str]]) -> Iterator[None]:
    """In this block PyTorch's out-of-memory error becomes EnvironmentLacks.

    ``where``: what was being done, as 'step 12 of 100'. ``fixes``: settings that need less memory,
    one a line. The message has PyTorch's own numbers: what was asked for, and what is free.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        numbers = " ".join(_NUMBERS.findall(str(error))) or str(error).splitlines()[0]
        settings = "".join(f"\n  {fix}" for fix in fixes())
        raise EnvironmentLacks(
            f"{where()}: the GPU has too little memory. {numbers} What is saved stays whole. "
            f"These need less:{settings}"
        ) from None
