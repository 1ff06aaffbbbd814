"""Batch normalisation as several processes would do it, in one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.engine import distributed


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over groups of ``group_size`` images instead of the whole batch.

    With S = B / group_size groups, sample n belongs to group n mod S: what rank n mod S of S
    processes would normalise, as processes take the samples of a batch in turn. The running
    statistics move towards the mean over the groups. A batch of at most ``group_size`` images is
    one group. State dict and evaluation are those of BatchNorm2d.
    """

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
            *(mean, var, self.weight.repeat(S), self.bias.repeat(S)),
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


class SyncBatchNorm2d(nn.SyncBatchNorm):
    """Batch norm over the images of all processes, on CPUs as well as on GPUs.

    torch's own refuses CPUs; there the sums go through ``distributed.all_reduce_sum``. Every
    process must bring equally many images. State dict and evaluation are those of BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:  # [B, C, h, w]
        if x.is_cuda or not self.training or distributed.world_size() == 1:
            return super().forward(x)
        count = distributed.world_size() * x.numel() // x.shape[1]
        x32 = x if x.dtype == torch.float64 else x.float()
        mean = distributed.all_reduce_sum(x32.sum((0, 2, 3))) / count  # [C]
        centred = x32 - mean[:, None, None]
        var = distributed.all_reduce_sum(centred.square().sum((0, 2, 3))) / count  # [C]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
