"""SimSiam (Chen and He 2021)."""

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..losses import negative_cosine
from ..views import View
from .base import LEVEL, Method, feature_std, new_backbone
from .heads import MLP, SimSiamProjector, unit
from .signs import image_signs


class SimSiam(Method):
    """Two views predict each other, with a stop-gradient and no negatives.

        f, g, h     backbone, projector, predictor
        z_v         projection g(f(view v))                  [B, D]
        p_v         prediction h(z_v)                        [B, D]
        L           −(cos(p₁, sg z₂) + cos(p₂, sg z₁)) / 2   (eq. 3, 4)

    Each view is a forward pass of its own, so that batch norm sees one view at a time.
    """

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.cfg, options = cfg, cfg.SIMSIAM
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[LEVEL]
        self.projector = SimSiamProjector(channels, options.HIDDEN, options.DIM)
        self.predictor = MLP(options.DIM, options.PREDICTOR_HIDDEN, options.DIM, bias=False)

    def at_peak_rate(self) -> list[nn.Module]:
        return [self.predictor] if self.cfg.SIMSIAM.FIX_PREDICTOR_LR else []

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        z = [self.projector(self.backbone(view.image)[LEVEL].mean((2, 3))) for view in views]
        return image_loss(z, [self.predictor(each) for each in z])


def image_loss(z: list[Tensor], p: list[Tensor]) -> dict[str, Tensor]:
    """SimSiam's loss of projections and predictions ``[B, D]`` of two views, and their signs."""
    loss = (negative_cosine(p[0], z[1]) + negative_cosine(p[1], z[0])) / 2
    first, second = (unit(each.detach()) for each in z)
    values = {"loss": loss, "loss/image": loss.detach(), "stat/feature_std": feature_std(first)}
    return values | image_signs(first, second)
