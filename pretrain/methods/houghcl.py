"""HoughCL: DenseCL's loss on matches that agree on a shift, by Hough voting."""

import torch
from torch import Tensor

from ..correspondence import Pair, best, cosine, hough_confidence, mirrored
from .densecl import DenseCL, match_statistics

OPTIONS = {
    # what votes: projected (the poster), backbone (as in DenseCL)
    "HOUGH.FEATURES": ("projected", ("projected", "backbone")),
    "HOUGH.EXPONENT": (3.0, "> 0"),  # d: appearance is max(cosine, 0)^d
    "HOUGH.SIGMA": (1.0, "> 0"),  # of the Gaussian over offsets, in positions
    # of the Gaussian: 2 (the poster's formula), 1 (hyperpixel flow's code)
    "HOUGH.PASSES": (2, ">= 1, <= 2"),
    "HOUGH.UNFLIP": False,  # undo the views' flips before voting: one shift can explain them
}


class HoughCL(DenseCL):
    """DenseCL whose match is the most confident one under Hough voting.

        m = (i, j)        a match; p(m_a) = max(cos, 0)^d its appearance, p(m_g|x) a Gaussian of its
                          offset around the bin x
        p(m|D)            p(m_a) Σ_x p(m_g|x) Σ_m' p(m'_a) p(m'_g|x)          [B, N, N]
        a(i)              argmax_j p(m|D); of the cosine where all are 0     long [B, N]

    ``HOUGH.PASSES`` 2 is the poster's formula, with the Gaussian over votes and over bins; 1 is
    hyperpixel flow's code. The poster votes with the projected features.
    """

    def correspond(self, pair: Pair, p_q: Tensor, p_k: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        options = self.cfg.HOUGH
        query, key = (p_q, p_k) if options.FEATURES == "projected" else (pair.query, pair.key)
        if options.UNFLIP:
            query = mirrored(query, pair.query_view.flip)
            key = mirrored(key, pair.key_view.flip)
        confidence = hough_confidence(
            query, key, pair.grid, options.EXPONENT, options.SIGMA, options.PASSES
        )
        match = best(confidence, cosine(query, key))
        if options.UNFLIP:
            match = unmirrored(match, pair)
        return match, match_statistics(match)


def unmirrored(match: Tensor, pair: Pair) -> Tensor:
    """The match ``[B, N]`` between mirrored views as one between the views as they are."""
    h, w = pair.grid
    place = torch.arange(h * w, device=match.device).view(h, w)
    same, turned = place.flatten(), place.flip(1).flatten()
    key = torch.where(pair.key_view.flip[:, None], turned, same)  # [B, N]
    query = torch.where(pair.query_view.flip[:, None], turned, same)
    return key.gather(1, match).gather(1, query)
