"""The linear probe: multinomial logistic regression on frozen features, by L-BFGS."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .cells import largest
from .rows import FeatureRows, Moments

BATCH_NORM_EPSILON = 1e-5  # torch's
NEVER = -1e4  # the bias of a class without labels: finite in half precision, and when interpolated
Report = Callable[[int, float], None]


@dataclass(frozen=True)
class LinearProbe:
    """A trained layer: ``weight [classes, C]`` and ``bias [classes]``, batch norm folded in.

    ``loss`` is what was minimised, at the end; ``gradient`` the largest element of its gradient
    there (in the scaled coordinates of :func:`linear_probe`), and ``converged`` whether that is
    below the tolerance; ``iterations`` were done.
    """

    weight: Tensor
    bias: Tensor
    loss: float
    gradient: float
    iterations: int
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """``[N, classes]`` of features ``[N, C]``; ``[B, classes, h, w]`` of maps ``[B, C, h, w]``,
        as a 1×1 convolution, so that logits can be upsampled before the largest is taken."""
        weight, bias = self.weight.to(features.device), self.bias.to(features.device)
        features = features.to(weight.dtype)
        if features.ndim == 4:
            return F.conv2d(features, weight[:, :, None, None], bias)
        return F.linear(features, weight, bias)

    def predict(self, features: Tensor) -> Tensor:
        """The class with the largest logit: long ``[N]``, or ``[B, h, w]`` of maps."""
        return largest(self.logits(features), 1)


@torch.no_grad()
def linear_probe(
    features: Tensor | Iterable[Tensor],
    labels: Tensor,
    classes: int,
    *,
    l2: float = 1e-4,
    batch_norm: bool = False,
    iterations: int = 300,
    tolerance: float = 1e-5,
    dtype: torch.dtype = torch.float32,
    report: Report | None = None,
) -> LinearProbe:
    """The layer that minimises the mean cross-entropy + ``l2`` / 2 · ‖weight‖².

    The bias is not penalised. scikit-learn's LogisticRegression(C=…) has the same optimum for
    C = 1 / (l2 · n), n the labelled positions.

    Args:
        features: ``[N, C]``; or an iterable of blocks ``[n, C]``, of which each ``iter()`` begins
            anew (a list, or an object that reads files): it is walked once for the moments of the
            channels and once for each step. What is held beyond a block is a few copies of 8
            million of its values (64 MiB in float64).
        labels: ``[N]`` whole numbers, of which those outside 0 … ``classes`` − 1 are ignored; or
            ``[N, classes]`` counts of pixels (:func:`probes.cell_counts`): the mean is then over
            pixels, each with the feature of its position.
        l2: of the mean loss.
        batch_norm: features are normalised by each channel's mean and variance (biased, ε 1e-5)
            over the labelled positions, and the normalised ones' weights are penalised: the batch
            norm before the 1×1 convolution of DINOv2's evaluation (arXiv 2304.07193; its affine
            parameters are one with the layer), at the fixed point of its running statistics.
        iterations: at most so many steps of L-BFGS.
        tolerance: of the gradient's largest element.
        dtype: of the products and of the layer. Sums, steps and moments are float64.
        report: called after each step with its number and the loss.

    A class without labels is never predicted (bias −10,000). The steps are taken in coordinates
    in which the curvature of every channel is about the same, which changes no optimum.

    Raises:
        ValueError: no position is labelled; features that are not finite; shapes that do not fit.
    """
    from scipy.optimize import minimize  # slow to import

    rows = FeatureRows(features, labels, classes, dtype)
    moments = Moments(rows)
    present = moments.labelled > 0
    problem = _Problem(rows.of_classes(present), moments, l2, batch_norm)
    steps = 0
    last = np.inf

    def report_step(result) -> None:
        nonlocal steps, last
        steps, last = steps + 1, float(result.fun)
        if report:
            report(steps, last)

    found = minimize(
        problem,
        problem.start(),
        jac=True,
        method="L-BFGS-B",
        callback=lambda intermediate_result: report_step(intermediate_result),
        options={
            "maxiter": iterations,
            "maxfun": 2 * iterations + 10,
            "gtol": tolerance,
            "ftol": 0.0,
            "maxcor": 20,
        },
    )
    weight, bias = problem.layer(found.x)
    whole = weight.new_zeros(classes, weight.shape[1])
    whole[present] = weight
    lowest = bias.new_full((classes,), NEVER)
    lowest[present] = bias
    gradient = float(np.abs(found.jac).max())
    return LinearProbe(
        weight=whole.to(dtype),
        bias=lowest.to(dtype),
        loss=float(found.fun),
        gradient=gradient,
        iterations=int(found.nit),
        converged=gradient <= tolerance,
    )


class _Problem:
    """The loss and its gradient of parameters (float64, flat) in scaled coordinates.

    The layer on normalised features z = a · (x − μ) has the weights t · V. With t = (σ_z² + l2)^−½
    the loss curves about alike in all of V.
    """

    def __init__(self, rows: FeatureRows, moments: Moments, l2: float, batch_norm: bool):
        self.rows, self.l2 = rows, l2
        self.mean = moments.mean.to(rows.dtype).double()  # as it is taken away from the rows
        variance = moments.variance
        self.total = float(moments.labelled.sum())
        self.normal = (variance + BATCH_NORM_EPSILON).rsqrt() if batch_norm else None
        a = torch.ones_like(variance) if self.normal is None else self.normal
        curvature = a.square() * variance + l2
        self.t = torch.where(curvature > 0, curvature, 1.0).rsqrt()
        self.a = a
        self.classes = len(rows.labelled)

    def start(self) -> np.ndarray:
        """All weights 0, the biases log shares of the classes."""
        first = torch.zeros(self.classes, len(self.mean) + 1, dtype=torch.float64)
        first[:, -1] = (self.rows.labelled.double() / self.total).log()
        return first.flatten().numpy()

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        V, bias = self._split(flat)
        weight = V * (self.a * self.t)
        loss, by_weight, by_bias = self._data(weight, bias)
        penalised = V * self.t
        loss = loss / self.total + self.l2 / 2 * float(penalised.square().sum())
        gradient = torch.empty(self.classes, len(self.mean) + 1, dtype=torch.float64)
        by_V = by_weight / self.total * (self.a * self.t) + self.l2 * penalised * self.t
        gradient[:, :-1], gradient[:, -1] = by_V, by_bias / self.total
        return loss, gradient.flatten().numpy()

    def _data(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """The summed cross-entropy, and its gradients, of centred features."""
        by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        loss = 0.0
        kind = self.rows.dtype
        for x, y in self.rows.blocks(self.mean):
            logits = F.linear(x, weight.to(kind).to(x.device)).double()
            logits += bias.to(x.device)
            log = logits.log_softmax(1)
            if y.ndim == 1:
                loss -= float(log.gather(1, y[:, None]).sum())
                rest = log.exp_()
                rest[torch.arange(len(y), device=y.device), y] -= 1
            else:
                weights = y.double()
                loss -= float((log * weights).sum())
                rest = log.exp_() * weights.sum(1, keepdim=True) - weights
            by_weight += (rest.to(kind).T @ x).to(by_weight)
            by_bias += rest.sum(0).to(by_bias)
        return loss, by_weight, by_bias

    def layer(self, flat: np.ndarray) -> tuple[Tensor, Tensor]:
        """Weights and biases for features as they are, float64."""
        V, bias = self._split(flat)
        weight = V * (self.a * self.t)
        return weight, bias - weight @ self.mean

    def _split(self, flat: np.ndarray) -> tuple[Tensor, Tensor]:
        parameters = torch.from_numpy(flat.copy()).view(self.classes, -1)
        return parameters[:, :-1], parameters[:, -1]
