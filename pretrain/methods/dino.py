"""DINO with multi-crop (Caron et al. 2021)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core import distributed
from densessl.core.errors import InputError
from densessl.core.schedules import linear

from ..backbones import SyncBatchNorm, last_level, pooled
from ..losses import distillation, next_center, paired_distillation
from ..precision import full_precision
from ..views import View
from .base import Method, feature_std, new_backbone
from .heads import unit
from .momentum import cosine_momentum, momentum_copy, momentum_update_
from .signs import image_signs

OPTIONS = {
    # DINO and SCFS
    "DINO.PROTOTYPES": (65536, ">= 2"),  # outputs of the head, K
    "DINO.HIDDEN": (2048, ">= 1"),  # hidden channels of the head
    "DINO.BOTTLENECK": (256, ">= 1"),  # channels that the last layer compares with its prototypes
    "DINO.HEAD_BN": False,  # batch norm in the head
    "DINO.NORM_LAST_LAYER": True,  # prototypes of length 1
    "DINO.FREEZE_LAST_LAYER": (1, ">= 0"),  # epochs in which the last layer rests
    "DINO.MOMENTUM": (0.996, ">= 0, <= 1"),  # of the teacher at the start; rises to 1 by a cosine
    "DINO.CENTER_MOMENTUM": (0.9, ">= 0, <= 1"),
    "DINO.GLOBAL_PAIRS": True,  # each global view against the other (SCFS Table 7: G_d2G_d)
    "DINO.STUDENT_TEMPERATURE": (0.1, "> 0"),
    "DINO.TEACHER_TEMPERATURE": (0.04, "> 0"),  # after its warm-up
    "DINO.WARMUP_TEACHER_TEMPERATURE": (0.04, "> 0"),  # at the start
    "DINO.WARMUP_TEACHER_EPOCHS": (0, ">= 0"),  # epochs from the one to the other
}

Levels = dict[str, Tensor]


class DINO(Method):
    """The student predicts, from every view, what the teacher makes of the two global ones.

        f, h        student: backbone and head; teacher f', h', their momentum copies
        s_v         h(f(view v)), all views                  [B, K]
        t_g         h'(f'(view g)), global views             [B, K]
        c           centre: moving mean of t                 [1, K]
        L           mean over g and v ≠ g of −Σ softmax((t_g − c)/τ_t) log softmax(s_v/τ_s)
        m           1 − (1 − m₀)(cos(π k / K) + 1) / 2 after step k of K

    Each resolution is one forward pass of the backbone, all together one of the head. What the
    head sees is the mean of the last level, or a ViT's class token.
    """

    schedules = ("steps", "steps_per_epoch")
    multi_crop = True
    accumulates = True
    momentum_option = "DINO.MOMENTUM"
    starts = (("DINO.FREEZE_LAST_LAYER", "epochs"),)
    center: Tensor

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        if not (cfg.DINO.GLOBAL_PAIRS or cfg.VIEWS.LOCAL_CROPS):
            raise InputError(
                "DINO.GLOBAL_PAIRS is False and VIEWS.LOCAL_CROPS is 0, so nothing is compared; "
                f"{cfg.METHOD.NAME} needs one of them"
            )

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.cfg, self.options = cfg, cfg.DINO
        self.backbone = new_backbone(cfg, drop_path=cfg.BACKBONE.DROP_PATH)
        self.head = DINOHead(self.backbone.channels, self.options)
        self.momentum_backbone = new_backbone(cfg).requires_grad_(False)
        self.momentum_backbone.load_state_dict(self.backbone.state_dict())
        self.momentum_head = momentum_copy(self.head)
        self.register_buffer("center", torch.zeros(1, self.options.PROTOTYPES))

    def before_step(self, step: int) -> None:
        momentum_update_(self, cosine_momentum(self.options.MOMENTUM, max(step - 1, 0), self.steps))

    def backbone_state(self) -> dict[str, Tensor]:
        """The teacher's backbone: what the authors evaluate."""
        return self.momentum_backbone.state_dict()

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        students, teacher = self.encode(views)
        loss, stats = self.image_loss(students, teacher, step)
        return {"loss": loss, "loss/image": loss.detach(), **stats}

    def encode(self, views: list[View]) -> tuple[list[Levels], Levels]:
        """The student's levels of the global and of the local views (none: one entry alone).

        And the teacher's of the global ones; views of one kind lie one after the other in the
        batch, ``[2B, …]`` and ``[N B, …]``.
        """
        self.kept = {}
        kinds = [torch.cat([v.image for v in kind]) for kind in (views[:2], views[2:]) if kind]
        students = [self.backbone(images) for images in kinds]
        with torch.no_grad():
            teacher = self.momentum_backbone(kinds[0])
        return students, teacher

    def image_loss(
        self, students: list[Levels], teacher: Levels, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """DINO's loss of all views, and statistics; the centre moves after the step.

        Without ``DINO.GLOBAL_PAIRS`` that of the local views alone: 0 where there are none.
        """
        B = len(pooled(teacher)) // 2
        logits = self.head(torch.cat([pooled(levels) for levels in students]))  # [V B, K]
        with torch.no_grad():
            targets = self.momentum_head(pooled(teacher))  # [2B, K]
        self.move_center("center", targets)
        temperatures = (self.options.STUDENT_TEMPERATURE, self.teacher_temperature(step))
        if self.options.GLOBAL_PAIRS:
            views = (logits.unflatten(0, (-1, B)), targets.unflatten(0, (-1, B)))
            loss = distillation(*views, self.center, *temperatures)
        elif local := len(logits) // B - 2:
            both = [target.repeat(local, 1) for target in targets.split(B)]  # [N B, K] each
            rows = [
                paired_distillation(logits[2 * B :], t, self.center, *temperatures) for t in both
            ]
            loss = torch.stack(rows).mean()
        else:
            loss = 0 * logits.sum()  # every parameter has a gradient, as DDP expects
        with torch.no_grad():
            shares = targets.float().sub(self.center).div(self.teacher_temperature(step)).softmax(1)
            entropy = torch.special.entr(shares).sum(1).mean()
        embeddings = unit(pooled(teacher))
        return loss, {
            "stat/feature_std": feature_std(embeddings),
            **image_signs(*embeddings.split(B)),
            "stat/teacher_entropy": entropy,
            "stat/center_norm": self.center.norm(),
        }

    def teacher_temperature(self, step: int) -> float:
        """τ_t in the epoch of ``step``."""
        options = self.options
        return teacher_temperature(
            options.WARMUP_TEACHER_TEMPERATURE,
            options.TEACHER_TEMPERATURE,
            options.WARMUP_TEACHER_EPOCHS,
            step // self.steps_per_epoch,
        )

    @torch.no_grad()
    def move_center(self, name: str, targets: Tensor) -> None:
        """Keep the mean of targets ``[M, K]``, by which ``name`` moves after the step."""
        dtype = torch.promote_types(targets.dtype, torch.float)
        self.kept = {**self.kept, name: targets.mean(0, keepdim=True, dtype=dtype)}

    def after_backward(self, step: int) -> None:
        if step // self.steps_per_epoch < self.options.FREEZE_LAST_LAYER:
            for parameter in self.head.last_layer.parameters():
                parameter.grad = None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for name, means in self.kept.items():  # a row each part
            total = distributed.all_reduce_sum(means.mean(0, keepdim=True))
            center, mean = getattr(self, name), total / distributed.world_size()
            center.copy_(next_center(center, mean, self.options.CENTER_MOMENTUM))
        self.kept = {}

    def ddp_ignored(self) -> list[str]:
        return [name for name, _ in self.named_buffers() if name.startswith("center")]


def teacher_temperature(warm: float, final: float, warmup_epochs: int, epoch: int) -> float:
    """The teacher's temperature in ``epoch`` (from 0), in equal steps from ``warm`` to ``final``.

    The last of the ``warmup_epochs`` is at ``final`` already, as are all after it.
    Source: DINO, main_dino.py (teacher_temp_schedule).
    """
    if epoch >= warmup_epochs:
        return final
    return linear(warm, final, epoch / max(warmup_epochs - 1, 1))


class DINOHead(nn.Module):
    """Three linear layers, normalisation, and cosines with the prototypes: ``[M, C]`` → ``[M, K]``.

    Initialised and named as in the official code (truncated normal of 0.02, the last layer by
    torch's default).
    """

    def __init__(self, channels: Mapping[str, int], options: CfgNode):
        super().__init__()
        sizes = [channels[last_level(channels)], options.HIDDEN, options.HIDDEN, options.BOTTLENECK]
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            linear = nn.Linear(inputs, outputs)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            layers.append(linear)
            if number < 2:
                layers += [SyncBatchNorm(outputs)] * options.HEAD_BN + [nn.GELU()]
        self.mlp = nn.Sequential(*layers)
        self.last_layer = Prototypes(options.BOTTLENECK, options.PROTOTYPES)
        self.last_layer.weight_g.requires_grad_(not options.NORM_LAST_LAYER)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(unit(self.mlp(x)))


class Prototypes(nn.Module):
    """Linear layer without bias whose rows have length g: x · g v / |v| (weight normalisation).

    In full precision whatever the autocast state: the cosines are divided by τ, 0.04, next.
    """

    def __init__(self, channels: int, prototypes: int):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(prototypes, 1))
        self.weight_v = nn.Parameter(nn.Linear(channels, prototypes, bias=False).weight.detach())

    @full_precision
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_g * F.normalize(self.weight_v))
