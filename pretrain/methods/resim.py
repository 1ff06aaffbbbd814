"""ReSim (Xiao et al. 2021): the same window in both views."""

from collections.abc import Mapping

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core import distributed
from densessl.core.errors import InputError

from ..backbones import FPN
from ..correspondence import windows
from ..losses import cell_negatives, info_nce, prroi_pool, region_info_nce
from ..views import View
from .base import feature_std
from .heads import unit
from .moco import MoCo
from .momentum import momentum_copy
from .signs import image_signs, pair_signs

TWIN_KEEPS = {"RESIM.FPN_DIM": "resim"}  # the FPN of the published configs is Detectron2's

OPTIONS = {
    # regions on: c4 (layer3 and a head), fpn (strides 16 and 8 of an FPN)
    "RESIM.LEVELS": ("c4", ("c4", "fpn")),
    # of c4: linear (1×1 convolution), mlp (two), none
    "RESIM.C4_HEAD": ("linear", ("linear", "mlp", "none")),
    "RESIM.DIM": (128, ">= 1"),  # channels of c4's head
    "RESIM.FPN_DIM": (256, ">= 1"),  # channels of the FPN
    "RESIM.FPN_NORM": ("", ("", "BN")),  # of the FPN's convolutions: "" or BN (per process)
    "RESIM.WINDOW": ((48, 32),),  # windows at stride 16: side and stride, in pixels of the view
    "RESIM.WINDOW_P3": ((32, 24),),  # the same at stride 8
    # of windows: grid (released code), overlap (the paper's words)
    "RESIM.PLACEMENT": ("grid", ("grid", "overlap")),
    "RESIM.INCLUSIVE": False,  # a window may end on the right and lower edge of a view
    # 3×3 cells of all key maps (released), regions (the paper)
    "RESIM.NEGATIVES": ("cells", ("cells", "regions")),
    "RESIM.GATHER_P3": False,  # negatives at stride 8 from all processes (released: the own only)
    "RESIM.ALIGNED": False,  # shift regions by half a cell onto the cells' centres (released: not)
    "RESIM.TEMPERATURE": (0.2, "> 0"),  # τ of the regions
    "RESIM.IMAGE_WEIGHT": (1.0, ">= 0"),  # λ: loss = regions + λ image
}

STRIDES = {"layer3": 16, "layer2": 8}  # the levels whose regions are compared


class ReSim(MoCo):
    """MoCo, and the same for regions: windows of the query view found again in the key view.

        F, F_k      maps of the regions at stride 16 (and 8 with an FPN)     [B, D, h, w]
        r, r_k      PrRoI-pooled windows, normalised                         [B, R, D]
        n           negatives: 3×3 cells of all key maps, normalised
        L_level     InfoNCE of r with r_k against n, over the windows that lie in both views
        L           Σ_level L_level + λ L_image                              (eq. 3)

    ``RESIM.LEVELS`` c4 is ReSim-C4: a head on layer3. fpn is ReSim-FPN; its FPN is in the
    checkpoint, and transferring it too makes ReSim-FPN^T.
    """

    dense = True
    same_flip = True
    pyramid = True
    accumulates = False  # negatives are regions of all images of the step

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        options = cfg.RESIM
        if options.LEVELS == "fpn":
            check_sides(cfg)
        names = ("WINDOW", "WINDOW_P3") if options.LEVELS == "fpn" else ("WINDOW",)
        for name in names:
            value = options[name]
            whole = all(isinstance(v, int) and v > 0 for v in value) and len(value) == 2
            if not whole or value[0] >= cfg.VIEWS.SIZE:
                raise InputError(
                    f"RESIM.{name} is {value}; it must be a side and a stride in whole pixels, the "
                    f"side below VIEWS.SIZE = {cfg.VIEWS.SIZE}, as (48, 32)"
                )

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg)
        self.regions = cfg.RESIM
        self.region_head = self.new_head(self.backbone.channels)
        self.momentum_region_head = momentum_copy(self.region_head)
        self.window = {"layer3": self.regions.WINDOW, "layer2": self.regions.WINDOW_P3}

    def new_head(self, channels: Mapping[str, int]) -> nn.Module:
        """What turns backbone levels into the maps of the regions."""
        if self.regions.LEVELS == "fpn":
            dim, norm = self.regions.FPN_DIM, self.regions.FPN_NORM
            names = {level: channels[level] for level in ("layer2", "layer3", "layer4")}
            return FPN(names, ["layer2", "layer3"], dim, norm)
        return C4Head(channels["layer3"], self.regions.DIM, self.regions.C4_HEAD)

    def momentum_outputs(self, levels: dict[str, Tensor]) -> list[Tensor]:
        maps = self.momentum_region_head(levels)
        return [
            self.momentum_projector(levels[self.level]),
            *(maps[level] for level in sorted(maps)),
        ]

    def direction(
        self, query_view: View, key_view: View, step: int, number: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        levels = self.backbone(query_view.image)
        q = unit(self.projector(levels[self.level]))
        maps = self.region_head(levels)
        k, *key_maps = self.encode_keys(key_view.image, step, number)
        k = unit(k)
        image = info_nce(q, k, self.queue.keys, self.options.TEMPERATURE)
        values = {"stat/feature_std": feature_std(q), **image_signs(q, k)}
        total = self.regions.IMAGE_WEIGHT * image
        for level, key_map in zip(sorted(maps), key_maps, strict=True):
            dense, r, r_k, valid = self.region_loss(
                level, maps[level], key_map, query_view, key_view
            )
            total = total + dense
            values[f"loss/regions_{STRIDES[level]}"] = dense.detach()
            values[f"stat/windows_{STRIDES[level]}"] = valid.sum() / len(valid)
            if STRIDES[level] == 16:  # which every variant has
                values |= pair_signs(r, r_k, valid)
        return {"loss": total, "loss/image": image.detach()} | values, [k]

    def region_loss(
        self, level: str, query_map: Tensor, key_map: Tensor, query_view: View, key_view: View
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss of the windows of one level.

        Also what it compares ``[B, R, D]`` (twice), and which windows both views show ``[B, R]``.
        """
        options = self.regions
        side, stride = self.window[level]
        boxes_q, boxes_k, valid = windows(
            query_view, key_view, side, stride, options.INCLUSIVE, options.PLACEMENT
        )
        scale = query_map.shape[3] / query_view.image.shape[3]
        r, r_k = (
            unit(
                prroi_pool(features, boxes, scale, 1, options.ALIGNED).flatten(0, 1).flatten(1)
            ).unflatten(0, valid.shape)  # [B, R, D]
            for features, boxes in ((query_map, boxes_q), (key_map, boxes_k))
        )
        among = options.NEGATIVES == "regions"
        negatives = self.all_regions(r_k, valid) if among else self.cells(level, key_map)
        loss = region_info_nce(r, r_k, valid, negatives, options.TEMPERATURE, among)
        return loss, r, r_k, valid

    @torch.no_grad()
    def cells(self, level: str, key_map: Tensor) -> Tensor:
        """The released code's negatives ``[M, D]``: 3×3 cells of the key maps."""
        own = cell_negatives(key_map)
        return distributed.gather(own) if level == "layer3" or self.regions.GATHER_P3 else own

    @torch.no_grad()
    def all_regions(self, r_k: Tensor, valid: Tensor) -> Tensor:
        """The paper's negatives ``[M, D]``: the key's regions of all images.

        How many are valid is known to the device alone: this waits for it.
        """
        r_k, valid = distributed.gather(r_k.contiguous()), distributed.gather(valid)
        return r_k[valid]

    def fpn_state(self) -> dict[str, Tensor] | None:
        return self.region_head.state_dict() if self.regions.LEVELS == "fpn" else None


class C4Head(nn.Module):
    """The head of ReSim-C4 on layer3: ``[B, C, h, w]`` → ``{"layer3": [B, D, h, w]}``.

    The released code has no C4 variant; this is what the shapes in its comments suggest
    (``linear``). ``none`` compares layer3 itself.
    """

    def __init__(self, channels: int, dim: int, kind: str):
        super().__init__()
        self.layers = {
            "linear": lambda: nn.Conv2d(channels, dim, 1),
            "mlp": lambda: nn.Sequential(
                nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, dim, 1)
            ),
            "none": nn.Identity,
        }[kind]()

    def forward(self, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"layer3": self.layers(levels["layer3"])}


def check_sides(cfg: CfgNode) -> None:
    """Raise InputError unless an FPN's levels double from one to the next."""
    if cfg.VIEWS.SIZE % 32:
        below = cfg.VIEWS.SIZE // 32 * 32
        nearest = f"{below} or {below + 32}" if below else "32"
        raise InputError(
            f"VIEWS.SIZE is {cfg.VIEWS.SIZE}; an FPN needs a multiple of 32; nearest: {nearest}"
        )
