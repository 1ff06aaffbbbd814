"""SCFS (Song et al. 2023): semantics-consistent feature search, on DINO."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core.errors import InputError

from ..backbones import SyncBatchNorm, strides_of
from ..backbones.resnet import STRIDES
from ..correspondence import crop_in_view, feature_search
from ..losses import paired_distillation, prroi_pool
from ..views import View
from .dino import DINO, Levels
from .heads import unit
from .momentum import momentum_copy

OPTIONS = {
    # the paper's Res2, Res3, Res4; of a ViT block4, block8, block12
    "SCFS.LEVELS": (("layer2", "layer3", "layer4"),),
    # of a local crop: search, map (DINO with multi-layer), roi (RoI-crop)
    "SCFS.TARGET": ("search", ("search", "map", "roi")),
    # global views searched: both (eq. 9, summed), first (code)
    "SCFS.SEARCH_VIEWS": ("both", ("both", "first")),
    "SCFS.LEVEL_WEIGHT": (0.5, ">= 0"),  # of the terms of a level (code)
    "SCFS.LEVEL_GLOBAL": True,  # also each global view against the other, at every level
    "SCFS.CENTER_LOCAL": False,  # centre the targets of local crops, too
    "SCFS.DIM": (256, ">= 2"),  # outputs of a level's head
}

LEAST_SHARE = 0.25  # of a local crop that the global view must show


class SCFS(DINO):
    """DINO, and at several levels a local view against what a search for it finds in a global one.

        F_l         student's map of a local view            [B, C, h, w]
        F'_g        teacher's map of a global view           [B, C, H, W]
        A           cos(GAP(F_l), F'_g(x, y))                [B, H, W]         (eq. 5, 6)
        F'_lg       A · F'_g                                                   (eq. 7)
        P_l, P'_lg  H(F_l), H'(F'_lg): the level's head      [B, D]            (eq. 8)
        L_f         Σ_g mean_l CE(softmax(P'_lg / τ_t), softmax(P_l / τ_s))    (eq. 9)
        L           L_DINO + Σ_levels w (L_g + L_f)                            (eq. 10, 11)

    L_g compares each global view with the other at that level (``SCFS.LEVEL_GLOBAL``). Without
    local crops the global views search in each other; Table 7's "w/o MC" has that term alone
    (``DINO.GLOBAL_PAIRS`` and ``SCFS.LEVEL_GLOBAL`` off). ``SCFS.TARGET`` map is DINO with
    multi-layer heads (no search), roi takes the place of the local crop instead of searching it.
    """

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        known = (*(strides_of(cfg.BACKBONE.NAME) or STRIDES),)
        levels = cfg.SCFS.LEVELS
        if not levels or not set(levels) <= set(known) or len(set(levels)) < len(levels):
            raise InputError(
                f"SCFS.LEVELS is {levels}; it must be some of {known}, which are the levels of "
                f"{cfg.BACKBONE.NAME}"
            )
        if cfg.SCFS.TARGET == "roi" and not cfg.VIEWS.LOCAL_CROPS:
            raise InputError(
                "SCFS.TARGET is roi, which needs local crops: VIEWS.LOCAL_CROPS above 0"
            )

    def __init__(self, cfg: CfgNode):
        self.check(cfg)
        super().__init__(cfg)
        self.search = cfg.SCFS
        heads = {
            level: LevelHead(self.backbone.channels[level], cfg.DINO.HIDDEN, self.search.DIM)
            for level in self.search.LEVELS
        }
        self.level_heads = nn.ModuleDict(heads)
        self.momentum_level_heads = momentum_copy(self.level_heads)
        for level in self.search.LEVELS:
            self.register_buffer(f"center_{level}", torch.zeros(1, self.search.DIM))

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        students, teacher = self.encode(views)
        image, stats = self.image_loss(students, teacher, step)
        loss, values = image, {}
        for level in self.search.LEVELS:
            terms = self.level_loss(level, students, teacher, views, step)
            for name, term in terms.items():
                loss = loss + self.search.LEVEL_WEIGHT * term
                values[f"loss/{name}_{level}"] = term.detach()
        return {"loss": loss, "loss/image": image.detach(), **values, **stats}

    def level_loss(
        self, level: str, students: list[Levels], teacher: Levels, views: list[View], step: int
    ) -> dict[str, Tensor]:
        """The terms of one level: ``global`` (each global view and the other) and ``local``."""
        head, center = self.level_heads[level], getattr(self, f"center_{level}")
        temperatures = (self.options.STUDENT_TEMPERATURE, self.teacher_temperature(step))
        if self.search.LEVEL_GLOBAL or len(students) == 1:
            P = head(students[0][level])  # [2B, D]
        with torch.no_grad():
            T_g = self.momentum_level_heads[level](teacher[level])  # [2B, D]
        self.move_center(f"center_{level}", T_g)
        terms = {}
        if self.search.LEVEL_GLOBAL:
            other = T_g.roll(len(T_g) // 2, 0)
            terms["global"] = paired_distillation(P, other, center, *temperatures)
        if len(students) > 1:
            P = head(students[1][level])  # [N B, D]
        rows = [
            paired_distillation(P, target, center if centred else None, *temperatures, weights)
            for target, centred, weights in self.targets(level, students, teacher, T_g, views)
        ]
        total = torch.stack(rows).sum(0)
        terms["local"] = total / len(rows) if self.search.TARGET == "map" else total
        return terms

    @torch.no_grad()
    def targets(
        self, level: str, students: list[Levels], teacher: Levels, T_g: Tensor, views: list[View]
    ) -> list[tuple[Tensor, bool, Tensor | None]]:
        """(teacher's outputs ``[N B, D]``, whether they are centred, weights) of each term."""
        options, F = self.search, teacher[level]  # [2B, C, H, W]
        B = len(F) // 2
        chosen = (0, 1) if options.SEARCH_VIEWS == "both" else (0,)
        if options.TARGET == "map":
            N = len(views) - 2 or 1
            both = [T_g.roll(B, 0)] if len(views) == 2 else [t.repeat(N, 1) for t in T_g.split(B)]
            return [(target, True, None) for target in both]
        head = self.momentum_level_heads[level]
        if len(views) == 2:  # the global views search in each other
            query = students[0][level].mean((2, 3))[None]  # [1, 2B, C]
            _, searched = feature_search(query, F.roll(B, 0))
            return [(head(searched[0]), options.CENTER_LOCAL, None)]
        found = []
        for g in chosen:
            weights = None
            key = F[g * B : (g + 1) * B]
            if options.TARGET == "search":
                query = students[1][level].mean((2, 3)).unflatten(0, (-1, B))  # [N, B, C]
                maps = feature_search(query, key)[1].flatten(0, 1)  # [N B, C, H, W]
            else:
                maps, weights = self.cut_out(level, key, views[g], views[2:])
            found.append((head(maps), options.CENTER_LOCAL, weights))
        return found

    def cut_out(
        self, level: str, key: Tensor, view: View, local: list[View]
    ) -> tuple[Tensor, Tensor]:
        """What the teacher's map shows where the local crops lie: ``[N B, C, r, r]``, weights.

        A crop of which the view shows less than a quarter has weight 0.
        """
        boxes, shares = zip(*(crop_in_view(each, view) for each in local), strict=True)
        side = 3 if level == "layer4" else 5  # 5 in the released code, which has none for layer4
        scale = key.shape[3] / view.image.shape[3]
        maps = prroi_pool(key, torch.stack(boxes, 1), scale, side)  # [B, N, C, r, r]
        weights = (torch.stack(shares) >= LEAST_SHARE).flatten().to(maps.dtype)  # [N B]
        return maps.transpose(0, 1).flatten(0, 1), weights


class LevelHead(nn.Module):
    """The head H of a level: a residual bottleneck, pooling, two linear layers, normalisation.

    ``[M, C, h, w]`` → ``[M, D]`` of length 1. Names and layers as in the official code.
    """

    def __init__(self, channels: int, hidden: int, dim: int, width: int = 256):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = SyncBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = SyncBatchNorm(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = SyncBatchNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            SyncBatchNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
            SyncBatchNorm(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = (self.bn3(self.conv3(y)) + x).relu()
        return unit(self.mlp(y.mean((2, 3))))
