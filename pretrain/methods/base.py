"""What the engine knows of a method."""

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from pretrain.views import View


class Method(nn.Module):
    """A method: :meth:`forward` gives the loss of a step, the rest keeps its state.

    The engine calls, at every step: ``before_step``, ``forward`` (through DDP where there are
    several processes), backward, the optimizer, ``after_step``. A step whose loss or gradient is
    not finite ends before the optimizer, and ``after_step`` is then not called.
    """

    backbone: nn.Module  # what is pretrained
    dense: bool = False  # whether it compares positions, and so needs more than one

    def forward(self, views: list[View], step: int) -> dict[str, Tensor]:
        """Float32 scalars of a step: ``"loss"``, detached terms ``"loss/…"`` and ``"stat/…"``."""
        raise NotImplementedError

    def before_step(self, step: int) -> None:
        """What moves before the forward pass: a momentum encoder."""

    def after_step(self, step: int) -> None:
        """What takes effect after the weights did: keys enter their queue."""

    def ddp_ignored(self) -> list[str]:
        """Names of buffers that are equal on all processes anyway: DDP need not send them."""
        return []

    def parameter_groups(self, cfg: CfgNode) -> list[dict]:
        """The groups for the optimizer: what is trained, with options of its own."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def compile_backbones(self) -> None:
        """``torch.compile`` every backbone in place; state dicts keep their names."""
        for name, module in self.named_children():
            if name.endswith("backbone"):
                module.compile()

    def backbone_state(self) -> dict[str, Tensor]:
        """The pretrained backbone under torchvision's names."""
        return self.backbone.state_dict()

    def fpn_state(self) -> dict[str, Tensor] | None:
        """The pretrained FPN, or None where a method has none."""
        return None


@torch.no_grad()
def feature_std(embedding: Tensor) -> Tensor:
    """Spread of unit vectors ``[M, D]``: mean over channels of their deviation, times √D.

    About 1 for embeddings spread over the sphere, 0 for collapsed ones. Source: SimSiam, 4.1.
    """
    return embedding.float().std(0).mean() * embedding.shape[1] ** 0.5
