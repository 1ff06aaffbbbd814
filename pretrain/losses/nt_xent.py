"""NT-Xent, the loss of SimCLR: every other sample of the batch is a negative."""

import torch
import torch.nn.functional as F

from densessl.core.errors import InputError

from ..precision import full_precision


@full_precision
def nt_xent(
    z: torch.Tensor,
    everyone: torch.Tensor,
    own: torch.Tensor,
    positive: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Cross entropy of every sample's other view among all other samples, their mean: scalar.

        l_i = -log( e^{z_i.z_p / tau} / sum_{j != i} e^{z_i.z_j / tau} ),   p the other view of i

    ``z [2B, D]`` are this process's projections and ``everyone [2M, D]`` those of all processes
    (gathered with their gradient; ``z`` itself where there is one), unit vectors, not normalised
    here. ``own`` and ``positive`` are long ``[2B]``: the rows of ``everyone`` that are the sample
    itself and its other view. Raises InputError for shapes that disagree. Source: SimCLR eq. 1.
    """
    rows = z.shape[:1]
    if z.ndim != 2 or everyone.shape[1:] != z.shape[1:] or {own.shape, positive.shape} != {rows}:
        raise InputError(
            f"nt_xent(): z is {list(z.shape)}, everyone {list(everyone.shape)}, own "
            f"{list(own.shape)} and positive {list(positive.shape)}; they must be [2B, D], "
            "[2M, D], [2B] and [2B]"
        )
    logits = z @ everyone.T / temperature  # [2B, 2M]
    logits = logits.scatter(1, own[:, None], -torch.inf)
    return F.cross_entropy(logits, positive)
