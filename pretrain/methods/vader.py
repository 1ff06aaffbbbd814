"""VADeR (Pinheiro et al. 2020): InfoNCE of points whose places in the image are the same."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from ..backbones import FPN
from ..correspondence import shared_points
from ..losses import info_nce, region_info_nce
from ..views import View
from .base import feature_std
from .branch import matching_generator, weighted
from .heads import Queue, unit
from .moco import MoCo
from .momentum import momentum_copy
from .resim import check_sides
from .signs import image_signs, pair_signs

OPTIONS = {
    # its FPN has RESIM.FPN_DIM channels
    "VADER.DIM": (128, ">= 1"),  # channels of a pixel's embedding
    "VADER.POINTS": (32, ">= 1"),  # pairs of points an image
    "VADER.TEMPERATURE": (0.07, "> 0"),  # τ
}


class VADeR(MoCo):
    """MoCo, and the same for points of a feature pyramid at stride 4.

        v           embedding of every pixel: FPN at stride 4, 1×1 convolution   [B, D, H/4, W/4]
        u, u'       points drawn in the area that both views show                [B, P, 2]
        L_dense     InfoNCE of v(u) with v_k(u') against a queue of other images' pixels
        L           (1 − λ) L_image + λ L_dense; the paper has no image loss (λ = 1), and starts
                    from MoCo's weights (``BACKBONE.WEIGHTS``)

    No official code is public; where the paper is silent, docs/methods.md says what was chosen.
    """

    dense = True
    pyramid = True

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        check_sides(cfg)

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg)
        self.embedding = PixelEmbedding(self.backbone.channels, cfg.RESIM.FPN_DIM, cfg.VADER.DIM)
        self.momentum_embedding = momentum_copy(self.embedding)
        self.dense_queue = Queue(cfg.MOCO.QUEUE, cfg.VADER.DIM)

    def momentum_outputs(self, levels: dict[str, Tensor]) -> list[Tensor]:
        return [self.momentum_projector(levels[self.level]), self.momentum_embedding(levels)]

    def direction(
        self, query_view: View, key_view: View, step: int, number: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        options = self.cfg.VADER
        levels = self.backbone(query_view.image)
        q = unit(self.projector(levels[self.level]))
        v_q = self.embedding(levels)  # [B, D, H/4, W/4]
        k, v_k = self.encode_keys(key_view.image, step, number)
        k = unit(k)
        generator = matching_generator(self.cfg.SEED, step, number)
        before = self.part * len(q)  # images of the step's earlier parts, whose points come first
        drawn = torch.rand(before + len(q), options.POINTS, 2, generator=generator)[before:]
        at_q, at_k, valid = shared_points(
            query_view, key_view, drawn.to(q.device, non_blocking=True)
        )
        points_q, points_k = unit_at(v_q, at_q), unit_at(v_k, at_k)  # [B, P, D]
        image = info_nce(q, k, self.queue.keys, self.options.TEMPERATURE)
        counted = valid[:, None].expand(-1, options.POINTS)
        keys, temperature = self.dense_queue.keys, options.TEMPERATURE
        dense = region_info_nce(points_q, points_k, counted, keys, temperature)
        losses = weighted(self.cfg, step, image, dense)
        stats = {
            "stat/feature_std": feature_std(points_k.flatten(0, 1)),
            "stat/empty_images": (~valid).float().mean(),
            **image_signs(q, k),
            **pair_signs(points_q, points_k, counted),
        }
        return losses | stats, [k, points_k.flatten(0, 1)]

    def fpn_state(self) -> dict[str, Tensor] | None:
        return self.embedding.fpn.state_dict()


class PixelEmbedding(nn.Module):
    """Backbone levels → an embedding at stride 4: FPN, then a 1×1 convolution."""

    def __init__(self, channels: Mapping[str, int], fpn_dim: int, dim: int):
        super().__init__()
        self.fpn = FPN(channels, ["layer1"], fpn_dim)
        self.project = nn.Conv2d(fpn_dim, dim, 1)

    def forward(self, levels: dict[str, Tensor]) -> Tensor:
        return self.project(self.fpn(levels)["layer1"])


def unit_at(features: Tensor, points: Tensor) -> Tensor:
    """Features ``[B, D, h, w]`` read bilinearly at ``points [B, P, 2]`` (x, y in −1 … 1 from edge
    to edge), as unit vectors ``[B, P, D]``.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    read = F.grid_sample(
        features.to(dtype), points[:, :, None, :], padding_mode="border", align_corners=False
    )
    return unit(read[..., 0]).transpose(1, 2)
