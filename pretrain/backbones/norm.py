"""Batch normalisation as several processes would do it, in one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.core import distributed


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over groups of ``group_size`` images instead of the whole batch.

    With S = B / group_size groups, sample n belongs to group n mod S: what rank n mod S of S
    processes would normalise, as processes take the samples of a batch in turn. The running
    statistics move towards the mean over the groups. A batch of at most ``group_size`` images is
    one group. State dict and evaluation are those of BatchNorm2d.
    """

    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def __init__(self, channels: int, group_size: int = 32, **options):
        super().__init__(channels, **options)
        self.group_size = group_size

    def forward(self, x: Tensor) -> Tensor:  # [B, C, h, w]
        B, C, h, w = x.shape
        if not self.training or self.group_size >= B:
            return super().forward(x)
        if B % self.group_size:
            raise ValueError(f"a batch of {B} does not split into groups of {self.group_size}")
        S = B // self.group_size
        mean, var = torch.zeros(2, S * C, device=x.device, dtype=self.running_mean.dtype)
        # Momentum 1 leaves each group's own statistics in `mean` and `var`.
        # Neighbouring samples become neighbouring channels: [B/S, S·C, h, w], without a copy.
        y = F.batch_norm(
            x.reshape(B // S, S * C, h, w),
            mean,
            var,
            weight=self.weight.repeat(S),
            bias=self.bias.repeat(S),
            training=True,
            momentum=1.0,
            eps=self.eps,
        )
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.view(S, C).mean(0), self.momentum)
            self.running_var.lerp_(var.view(S, C).mean(0), self.momentum)
        return y.view(B, C, h, w)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, group_size={self.group_size}"


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the images of all processes, of maps or vectors, on CPUs as on GPUs.

    torch's own refuses CPUs, and DDP refuses its subclasses there; so this is none of them, and
    borrows its forward pass on GPUs. On CPUs the sums go through ``distributed.all_reduce_sum``.
    Every process must bring equally many images. State dict and evaluation are BatchNorm2d's.
    """

    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float
    process_group = None  # all processes: nn.SyncBatchNorm.forward reads it
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"batch norm takes [B, C, …], not {list(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:  # [B, C, h, w] or [B, C]
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        if x.is_cuda:
            return nn.SyncBatchNorm.forward(self, x)  # type: ignore[arg-type]
        count = distributed.world_size() * x.numel() // x.shape[1]
        x32 = x if x.dtype == torch.float64 else x.float()
        others, wide = (0, *range(2, x.ndim)), (-1, *(1,) * (x.ndim - 2))
        mean = distributed.all_reduce_sum(x32.sum(others)) / count  # [C]
        centred = x32 - mean.view(wide)
        var = distributed.all_reduce_sum(centred.square().sum(others)) / count  # [C]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        y = centred * torch.rsqrt(var + self.eps).view(wide)
        if self.affine:
            y = y * self.weight.view(wide) + self.bias.view(wide)
        return y.to(x.dtype)


def slow_(network: nn.Module, passes: int) -> None:
    """Let the running statistics of all batch norms move as far in so many passes as else in one:
    1 - (1 - m)^(1/passes) in each for a momentum of m."""
    for module in network.modules() if passes > 1 else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum:
            module.momentum = 1 - (1 - module.momentum) ** (1 / passes)
