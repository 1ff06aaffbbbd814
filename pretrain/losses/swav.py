"""SwAV: codes of one view, balanced over the batch, predicted from the other views.

s       scores, z . c / |z||c| of a sample with every prototype     P   number of prototypes
q       codes, the balanced assignment of samples to prototypes     V   number of views
"""

from collections.abc import Sequence

import torch

from densessl.core.errors import InputError

from ..precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(scores: torch.Tensor, epsilon: float = 0.05, iterations: int = 3) -> torch.Tensor:
    """Codes of the samples, spread equally over the prototypes: ``[M, P]``, rows sum to 1.

    ``scores`` are ``[M, P]`` of all samples of the batch (of all processes: gather them first). The
    columns are scaled to equal sums, then the rows, ``iterations`` times; more iterations, more
    equal columns. No gradient. In logarithms, so that no score is too large and no sample is so far
    from every prototype that its row vanishes.
    Raises InputError for other shapes and values that are not positive.
    Source: SwAV eq. 3-5 and algorithm 1.
    """
    if scores.ndim != 2:
        raise InputError(f"sinkhorn(): scores are {list(scores.shape)}; they must be [M, P]")
    if not (epsilon > 0 and iterations >= 1):
        raise InputError(
            f"sinkhorn(): epsilon is {epsilon} and iterations {iterations}; epsilon must be "
            "positive and iterations at least 1"
        )
    log_q = (scores - scores.max()) / epsilon
    for _ in range(iterations):
        log_q = torch.log_softmax(log_q, dim=0)
        log_q = torch.log_softmax(log_q, dim=1)
    return log_q.exp()


def swapped_prediction(
    scores: Sequence[torch.Tensor], codes: Sequence[torch.Tensor], temperature: float
) -> torch.Tensor:
    """Cross entropy of the first views' codes with the predictions of all other views: scalar.

        l = mean over g of mean over v != g of  -1/B sum_b sum_p q_g log softmax(s_v / tau)

    ``scores``: one ``[B, P]`` a view; ``codes``: one ``[B, P]`` for each of the first views (the
    global crops), in the same order, constants. Raises InputError for shapes that disagree or fewer
    than two views. Source: SwAV eq. 1 and 2, multi-crop eq. 6.
    """
    if len(scores) < 2 or not 1 <= len(codes) <= len(scores):
        raise InputError(
            f"swapped_prediction(): {len(scores)} scores and {len(codes)} codes; "
            "at least two views, and codes for one to all of them, are needed"
        )
    shapes = {tuple(x.shape) for x in (*scores, *codes)}
    if len(shapes) > 1:
        raise InputError(
            f"swapped_prediction(): scores and codes are {sorted(map(list, shapes))}; "
            "all must be [B, P]"
        )
    predictions = [_log_prediction(s, temperature) for s in scores]
    terms = [
        _cross_entropy(q.detach(), prediction)
        for g, q in enumerate(codes)
        for v, prediction in enumerate(predictions)
        if v != g
    ]
    return torch.stack(terms).mean()


@full_precision
def _log_prediction(scores: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.log_softmax(scores / temperature, dim=1)


@full_precision
def _cross_entropy(codes: torch.Tensor, log_prediction: torch.Tensor) -> torch.Tensor:
    return -(codes * log_prediction).sum(1).mean()
