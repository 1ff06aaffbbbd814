"""What is measured of a backbone while it trains: when, with which controls, on which images.

It changes nothing of the run: a copy of the backbone in evaluation mode looks at the images, and
nothing is drawn.
"""

from collections.abc import Iterator, Sequence

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from densessl.core.loader import Batches

from .online_backbone import LabelledImages, OnlineBackbone

STATISTICS = 1024  # images whose batch-norm statistics the control random_bn has, about


class OnlineMeasure:
    """A number, per cent, every ``period`` epochs of ``epoch`` steps.

    A subclass has the ``metric`` (its key in metrics.jsonl), the ``title`` in the log and the
    images to learn from, ``train``, and says how the number is had.
    """

    metric = ""
    title = ""
    train: LabelledImages

    def __init__(self, cfg: CfgNode, period: float, epoch: int, device: torch.device):
        self.cfg, self.device = cfg, device
        self.period = max(round(period * epoch), 1)
        self.backbone = OnlineBackbone(cfg.BACKBONE.NAME, device, cfg.AMP)

    def due(self, step: int, last: int) -> bool:
        """Whether to measure after ``step`` steps of ``last``; before the first is another call."""
        return step % self.period == 0 or step == last

    @torch.no_grad()
    def measure(self, state: dict[str, Tensor]) -> dict[str, float]:
        """``{metric: per cent}`` of the backbone with these tensors; every process calls it."""
        self.backbone.load(state)
        return {self.metric: self.value(self.title)}

    @torch.no_grad()
    def controls(self, state: dict[str, Tensor], measured: dict[str, float]) -> dict[str, float]:
        """Of a random start with these tensors, of which ``measured`` is, the two controls.

        ``METRIC_random``: itself. ``METRIC_random_bn``: with the batch-norm statistics of about
        STATISTICS of the images to learn from (each process looks at all of them).
        """
        controls = {f"{self.metric}_random": measured[self.metric]}
        self.backbone.load(state)
        if self.backbone.take_statistics(self._readable()):
            controls[f"{self.metric}_random_bn"] = self.value(f"{self.title}, random_bn")
        return controls

    def value(self, what: str) -> float:
        """The number, of the backbone as it is, which is logged as ``what``."""
        raise NotImplementedError

    def batches(self, images: LabelledImages, numbers: Sequence[int]) -> Batches:
        """Those of ``images`` with these numbers, in batches."""
        return self.backbone.batches(images, numbers, self.cfg.DATA)

    def _readable(self) -> Iterator[Tensor]:
        """Batches of the images to learn from, evenly over them, for batch norm."""
        every = max(len(self.train) // STATISTICS, 1)
        with self.batches(self.train, range(0, len(self.train), every)) as batches:
            for images, *_, last in batches:
                if (readable := last >= 0).any():
                    yield images[readable]
