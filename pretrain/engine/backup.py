"""What a step moves, kept for a step that is not applied."""

from functools import cached_property

import torch
from torch import Tensor


class Backup:
    """Copies of ``tensors``, to which these can be set back."""

    def __init__(self, tensors: list[Tensor]):
        groups: dict[torch.dtype, list[Tensor]] = {}  # as the foreach kernels need them to be fast
        for tensor in tensors:
            groups.setdefault(tensor.dtype, []).append(tensor.detach())
        self.tensors = list(groups.values())  # of each dtype
        self._before = [Copies(group) for group in self.tensors]

    @cached_property
    def _after(self) -> "list[Copies]":
        return [Copies(group) for group in self.tensors]

    def keep(self) -> None:
        """Copy the tensors as they are now."""
        for tensors, before in zip(self.tensors, self._before, strict=True):
            torch._foreach_copy_(before.each, tensors)

    def restore(self) -> None:
        """Set the tensors back."""
        for tensors, before in zip(self.tensors, self._before, strict=True):
            torch._foreach_copy_(tensors, before.each)

    def restore_where(self, bad: Tensor) -> None:
        """Set the tensors back if the boolean scalar ``bad`` on their device is true, in a few
        kernels and without waiting for it."""
        for tensors, before, after in zip(self.tensors, self._before, self._after, strict=True):
            torch._foreach_copy_(after.each, tensors)
            torch.where(bad, before.all, after.all, out=after.all)
            torch._foreach_copy_(tensors, after.each)


class Copies:
    """Room for copies of tensors of one dtype: of ``each``, and of ``all`` in one dimension."""

    def __init__(self, tensors: list[Tensor]):
        sizes = [tensor.numel() for tensor in tensors]
        self.all = tensors[0].new_zeros(sum(sizes))
        self.each = [_like(*pair) for pair in zip(self.all.split(sizes), tensors, strict=True)]


def _like(row: Tensor, tensor: Tensor) -> Tensor:
    """A view of ``row`` with the shape of ``tensor``, and its order of dimensions in memory."""
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda dim: -strides[dim])
    back = [order.index(dim) for dim in range(tensor.ndim)]
    return row.view([tensor.shape[dim] for dim in order]).permute(back)
