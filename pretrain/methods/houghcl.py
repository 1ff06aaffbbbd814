"""HoughCL: DenseCL's loss on matches that agree on a shift, by Hough voting."""

from torch import Tensor

from ..correspondence import Pair, hough_match
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
        flips = (pair.query_view.flip, pair.key_view.flip) if options.UNFLIP else None
        match, _ = hough_match(query, key, options.EXPONENT, options.SIGMA, options.PASSES, flips)
        return match, match_statistics(match)
