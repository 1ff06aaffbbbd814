"""A network whose batch norm has the statistics of given images: the control ``random_bn``."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def take_statistics(
    network: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object]
) -> bool:
    """Give each batch norm of ``network`` the mean of its statistics over ``batches`` of images.

    Forward passes with the norms in training mode (``forward(images)`` runs ``network``): a layer
    sees what those before it, normalised by their batch, give. Every batch counts alike. Leaves the
    network in evaluation mode; False, and nothing is done, where there is no batch norm.
    """
    norms = [each for each in network.modules() if isinstance(each, _BatchNorm)]
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for images in batches:
        forward(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return True
