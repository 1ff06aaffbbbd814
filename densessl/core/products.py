"""Matrix products by the fastest kernel that is there."""

import functools
import platform
from pathlib import Path

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of matrices ``[m, d]`` and ``[n, d]``, without a gradient.

    On CPU in float32 through oneDNN, which PyTorch's own matmul does not use, where MKL has no
    kernels for the processor (AMD: up to twice as fast); on Intel's MKL's take half to nine tenths
    of oneDNN's time.
    """
    if a.device.type == "cpu" and a.dtype == torch.float32 and _onednn_is_faster():
        # a strided b would meet oneDNN's slow reference code
        return torch.ops.mkldnn._linear_pointwise(a, b.contiguous(), None, "none", [], "")
    return a @ b.T


@functools.cache
def _onednn_is_faster() -> bool:
    if torch.backends.mkl.is_available() and _vendor_is_intel():
        return False
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _vendor_is_intel() -> bool:
    about = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows
    text = about.read_text() if about.exists() else platform.processor()
    return "GenuineIntel" in text
