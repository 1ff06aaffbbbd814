"""SimSiam (Chen and He 2021), and the same for positions."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..correspondence import Pair
from ..losses import negative_cosine, set_cosine
from ..views import View
from .base import Method, feature_std, new_backbone
from .branch import Corresponding, matching_generator, weighted
from .heads import MLP, SimSiamProjector, unit
from .signs import image_signs, position_signs

OPTIONS = {
    "SIMSIAM.DIM": (2048, ">= 1"),  # channels of the projections z and of the predictions p
    "SIMSIAM.HIDDEN": (2048, ">= 1"),  # hidden channels of the projector
    "SIMSIAM.PREDICTOR_HIDDEN": (512, ">= 1"),
    "SIMSIAM.FIX_PREDICTOR_LR": True,  # the predictor's rate stays at its peak
}


class SimSiam(Method):
    """Two views predict each other, with a stop-gradient and no negatives.

        f, g, h     backbone, projector, predictor
        z_v         projection g(f(view v))                  [B, D]
        p_v         prediction h(z_v)                        [B, D]
        L           −(cos(p₁, sg z₂) + cos(p₂, sg z₁)) / 2   (eq. 3, 4)

    Each view is a forward pass of its own, so that batch norm sees one view at a time.
    """

    accumulates = True

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.cfg, options = cfg, cfg.SIMSIAM
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[self.level]
        self.projector = SimSiamProjector(channels, options.HIDDEN, options.DIM)
        self.predictor = MLP(options.DIM, options.PREDICTOR_HIDDEN, options.DIM, bias=False)

    def at_peak_rate(self) -> list[nn.Module]:
        return [self.predictor] if self.cfg.SIMSIAM.FIX_PREDICTOR_LR else []

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        z = [self.projector(self.backbone(view.image)[self.level].mean((2, 3))) for view in views]
        return image_loss(z, [self.predictor(each) for each in z])


def image_loss(z: list[Tensor], p: list[Tensor]) -> dict[str, Tensor]:
    """SimSiam's loss of projections and predictions ``[B, D]`` of two views, and their signs."""
    loss = (negative_cosine(p[0], z[1]) + negative_cosine(p[1], z[0])) / 2
    first, second = (unit(each.detach()) for each in z)
    values = {"loss": loss, "loss/image": loss.detach(), "stat/feature_std": feature_std(first)}
    return values | image_signs(first, second)


class DenseSimSiam(Corresponding, SimSiam):
    """SimSiam, and the same for positions, with the positives that a correspondence gives.

        f_v         backbone map of view v                   [B, C, h, w]
        z_v, p_v    dense projection and prediction          [B, D, h, w]
        c           positives of every position              [B, N, N]
        L_dense     −(cos of p₁ with its positives in sg z₂ + of p₂ in sg z₁) / 2, as SetSim's 4.1
        L           (1 − λ) L_image + λ L_dense

    The convolutional projector and predictor are SimSiam's, of every position (SetSim 4.1). Each
    direction has its own c, by default that of the expression ``DENSE.CORRESPONDENCE``.
    """

    def __init__(self, cfg: CfgNode):
        self.check(cfg)
        super().__init__(cfg)
        options, channels = cfg.SIMSIAM, self.backbone.channels[self.level]
        self.dense_projector = SimSiamProjector(channels, options.HIDDEN, options.DIM, dense=True)
        self.dense_predictor = MLP(
            options.DIM, options.PREDICTOR_HIDDEN, options.DIM, dense=True, bias=False
        )
        self.prepare(cfg)

    def at_peak_rate(self) -> list[nn.Module]:
        resting = super().at_peak_rate()
        return [*resting, self.dense_predictor] if resting else []

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        maps = [self.backbone(view.image)[self.level] for view in views]  # [B, C, h, w]
        z = [self.projector(each.mean((2, 3))) for each in maps]
        values = image_loss(z, [self.predictor(each) for each in z])
        dense_z = [self.dense_projector(each) for each in maps]  # [B, D, h, w]
        dense_p = [self.dense_predictor(each) for each in dense_z]
        projections = [unit(each.detach()).flatten(2) for each in dense_z]
        terms, stats = [], []
        for query, key in ((0, 1), (1, 0)):
            generator = matching_generator(self.cfg.SEED, step, query, self.part)
            z_q, z_k = maps[query].detach(), maps[key].detach()
            pair = Pair(z_q, z_k, views[query], views[key], generator)
            with torch.no_grad():
                c, found = self.correspond(pair, dense_z[query].detach(), dense_z[key].detach())
            stats.append(found | position_signs(projections[query], projections[key], c))
            terms.append(set_cosine(dense_p[query].flatten(2), dense_z[key].flatten(2), c))
        dense = (terms[0] + terms[1]) / 2
        both = {name: (value + stats[1][name]) / 2 for name, value in stats[0].items()}
        return values | weighted(self.cfg, step, values["loss"], dense) | both
