"""What a correspondence is computed from: the maps of two views, and where the views come from."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from .attention import attention
from .similarity import cosine, nearest

if TYPE_CHECKING:
    from ..views import View


@dataclass
class Pair:
    """One direction of a pair of views: query positions look for key positions.

    ``query`` and ``key`` are backbone maps ``[B, C, h, w]`` on one grid, ``query_view`` and
    ``key_view`` the views that they are of; ``generator`` (CPU) is for what is random. What several
    correspondences need is computed once.
    """

    query: torch.Tensor
    key: torch.Tensor
    query_view: "View"
    key_view: "View"
    generator: torch.Generator | None = None

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps, (h, w)."""
        return self.query.shape[2], self.query.shape[3]

    @cached_property
    def cosine(self) -> torch.Tensor:
        """Cosine of every query position with every key position, ``[B, N, N]``."""
        return cosine(self.query, self.key)

    @cached_property
    def nearest(self) -> torch.Tensor:
        """The nearest key position of every query position, long ``[B, N]``."""
        # On CUDA its cosine is another one, in float64.
        known = None if self.query.is_cuda else self.cosine
        return nearest(self.query, self.key, known)

    @cached_property
    def attention(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of the query and of the key positions (SetSim eqs. 3, 4), ``[B, N]`` each."""
        return attention(self.query), attention(self.key)
