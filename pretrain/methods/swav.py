"""SwAV (Caron et al. 2020), with multi-crop."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core import distributed

from ..losses import sinkhorn, swapped_prediction
from ..precision import full_precision
from ..views import View
from .base import Method, feature_std, new_backbone
from .heads import MLP, Queue, unit
from .signs import image_signs

OPTIONS = {
    "SWAV.DIM": (128, ">= 1"),  # projection channels
    "SWAV.HIDDEN": (2048, ">= 1"),  # hidden channels of the projector
    "SWAV.PROTOTYPES": (3000, ">= 2"),
    "SWAV.TEMPERATURE": (0.1, "> 0"),  # τ
    "SWAV.EPSILON": (0.05, "> 0"),  # of Sinkhorn-Knopp: smoothness of the codes
    "SWAV.ITERATIONS": (3, ">= 1"),  # of Sinkhorn-Knopp
    "SWAV.QUEUE": (0, ">= 0"),  # earlier projections that help to balance the codes; 0: none
    "SWAV.QUEUE_START": (15, ">= 0"),  # epoch from which it is filled; it is used once it is full
    "SWAV.FREEZE_STEPS": (313, ">= 0"),  # first steps in which the prototypes do not move
}
TWIN_AT_MOST = {"SWAV.QUEUE": 32}  # in the twin for the scenes, which has few images


class SwAV(Method):
    """The cluster codes of a global view predicted from all other views.

        f, g        backbone and projector
        z_v         normalised projection g(f(view v))       [B, D]
        C           prototypes, rows of length 1             [P, D]
        q_v         codes of global view v: Sinkhorn-Knopp of z_v Cᵀ over all processes   [B, P]
        L           mean over v of the mean over views w ≠ v of −Σ q_v log softmax(z_w Cᵀ / τ)

    Each resolution is one forward pass of the backbone, all together one of the projector. With
    ``SWAV.QUEUE``, projections of earlier steps are balanced along with the batch; they are kept
    from epoch ``QUEUE_START`` on, and used once the queue is full of them.
    """

    schedules = ("steps_per_epoch",)
    multi_crop = True
    queue_option = "SWAV.QUEUE"
    starts = (("SWAV.FREEZE_STEPS", "steps"),)

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.options, self.batch = cfg.SWAV, cfg.SOLVER.BATCH_SIZE
        self.backbone = new_backbone(cfg)
        channels = self.backbone.channels[self.level]
        self.projector = MLP(channels, self.options.HIDDEN, self.options.DIM)
        self.prototypes = nn.Linear(self.options.DIM, self.options.PROTOTYPES, bias=False)
        kept = 2 if self.options.QUEUE else 0
        self.queues = nn.ModuleList(
            Queue(self.options.QUEUE, self.options.DIM) for _ in range(kept)
        )

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        B = len(views[0].image)
        groups = [group for group in (views[:2], views[2:]) if group]
        pooled = [
            self.backbone(torch.cat([view.image for view in group]))[self.level].mean((2, 3))
            for group in groups
        ]
        z = unit(self.projector(torch.cat(pooled)))  # [V B, D]
        scores = list(self.scores(z).split(B))
        first, second = z[: 2 * B].detach().split(B)
        self.kept = {0: first, 1: second}
        codes = [self.codes(number, scores[number].detach(), step) for number in range(2)]
        loss = swapped_prediction(scores, codes, self.options.TEMPERATURE)
        used = torch.zeros(self.options.PROTOTYPES, device=z.device)
        used.index_fill_(0, torch.cat(codes).argmax(1), 1.0)
        return {
            "loss": loss,
            "loss/image": loss.detach(),
            "stat/feature_std": feature_std(first),
            "stat/prototypes_used": used.sum(),
            **image_signs(first, second),
        }

    @full_precision
    def scores(self, z: Tensor) -> Tensor:
        """Cosines of projections ``[M, D]`` with the prototypes ``[M, P]``; later divided by ε."""
        return nn.functional.linear(z, self.prototypes.weight.to(z.dtype))

    @torch.no_grad()
    def codes(self, number: int, scores: Tensor, step: int) -> Tensor:
        """The codes ``[B, P]`` of this process's images in global view ``number``."""
        everyone = distributed.gather(scores)  # [M, P]
        M = len(everyone)
        if self.queue_is_full(step):
            everyone = torch.cat((everyone, self.scores(self.queues[number].keys)))
        codes = sinkhorn(everyone, self.options.EPSILON, self.options.ITERATIONS)
        return distributed.mine(codes[:M])

    def queue_is_full(self, step: int) -> bool:
        """Whether the queue holds nothing but projections of earlier steps."""
        steps = step - self.options.QUEUE_START * self.steps_per_epoch
        return bool(self.queues) and steps * self.batch >= self.options.QUEUE

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        self.prototypes.weight.copy_(unit(self.prototypes.weight))

    def moved_weights(self) -> list[Tensor]:
        return [self.prototypes.weight]

    def after_backward(self, step: int) -> None:
        if step < self.options.FREEZE_STEPS:
            self.prototypes.weight.grad = None

    def after_step(self, step: int) -> None:
        if step >= self.options.QUEUE_START * self.steps_per_epoch:
            queues = (module for module in self.queues if isinstance(module, Queue))
            for queue, keys in zip(queues, self.kept.values(), strict=False):
                queue.enqueue(distributed.gather(keys))
        self.kept = {}

    def ddp_ignored(self) -> list[str]:
        return [name for name, _ in self.named_buffers() if "queue" in name]
