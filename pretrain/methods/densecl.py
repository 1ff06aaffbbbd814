"""DenseCL (Wang et al. 2021): MoCo-v2, and the same for nearest neighbours."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from ..correspondence import Pair, nearest
from ..losses import dense_info_nce
from .moco import DenseMoCo


class DenseCL(DenseMoCo):
    """MoCo with a dense branch whose positive is the nearest neighbour.

        a           argmax_j cos(z_q,i, z_k,j) on backbone features    long [B, N]   (eq. 2)
        L_dense     InfoNCE of p_q,i with p_k,a(i) against the dense queue           (eq. 3)
        L           (1 − λ) L_image + λ L_dense                                      (eq. 4)

    ``DENSE.WARMUP_STEPS`` is the official code's warm-up of λ (its configs do not use it).
    """

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Nothing: DENSE.CORRESPONDENCE is not used."""

    def correspond(self, pair: Pair, p_q: Tensor, p_k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        match = nearest(pair.query, pair.key)
        return match, match_statistics(match)

    def dense_loss(self, p_q: Tensor, p_k: Tensor, c: Tensor) -> Tensor:
        return dense_info_nce(p_q, p_k, c, self.dense_queue.keys, self.cfg.DENSE.TEMPERATURE)


def match_statistics(match: Tensor) -> dict[str, Tensor]:
    """How a match ``[B, Nq]`` (key positions) spreads: the share of key positions that are met."""
    hit = torch.zeros_like(match, dtype=torch.float32).scatter_(1, match, 1.0)
    return {"stat/keys_matched": hit.mean()}
