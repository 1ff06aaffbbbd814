"""What a run measures beside its loss: signs of collapse, and how good its backbone is so far."""

from typing import Any

import torch
from fvcore.common.config import CfgNode

from densessl.core import distributed
from densessl.decoding import Range

from ..contradictions import FAR, over_rule
from ..methods.base import Method
from .collapse import Collapse
from .online_knn import OnlineKNN
from .online_probe import OnlineProbe
from .step import StepOutcome


class RunWatch:
    """Looks on, and changes no number of the run.

    ``epoch``: steps of one; ``total``: of the run; ``bounds``: its range of values that are not of
    8 bits. Raises InputError for folders of labelled images that are not there or do not fit.
    """

    def __init__(
        self,
        cfg: CfgNode,
        epoch: int,
        total: int,
        device: torch.device,
        bounds: Range | None = None,
    ):
        self.cfg, self.total = cfg, total
        images = cfg.SOLVER.BATCH_SIZE // distributed.world_size()
        too_fast = over_rule(cfg) > FAR
        self.collapse = Collapse(round(cfg.SOLVER.WARMUP_EPOCHS * epoch), images, too_fast)
        kinds = ((cfg.KNN, OnlineKNN), (cfg.PROBE, OnlineProbe))
        self.online = [kind(cfg, epoch, device, bounds) for own, kind in kinds if own.PERIOD]

    def start(self, method: Method) -> dict[str, float]:
        """The online measures before the first step, and of the controls of a random start."""
        values: dict[str, float] = {}
        for each in self.online:
            state = method.backbone_state()
            values |= each.measure(state)
            if not self.cfg.BACKBONE.WEIGHTS:
                values |= each.controls(state, values)
        return values

    def measures(self, iteration: int) -> bool:
        """Whether an online measure is due, ``iteration`` steps being done."""
        return any(each.due(iteration, self.total) for each in self.online)

    def step(self, iteration: int, outcome: StepOutcome, method: Method) -> dict[str, float]:
        """Look at a step, ``iteration`` steps being done; the online measures that are due."""
        if outcome.applied:
            self.collapse.count(iteration, outcome.values)
        values: dict[str, float] = {}
        for each in self.online:
            if each.due(iteration, self.total):
                values |= each.measure(method.backbone_state())
        return values

    def facts(self) -> dict[str, int]:
        """What the lines of the log hold as it is."""
        return self.collapse.facts()

    def state_dict(self) -> dict[str, Any]:
        return self.collapse.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.collapse.load_state_dict(state)
