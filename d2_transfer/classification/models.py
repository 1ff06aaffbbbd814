"""What is trained: linear classifiers on a frozen backbone, or a backbone with a new layer."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from densessl.core.distributed import world_size

from .. import compat, mixed_precision
from .networks import FeatureNetwork
from .settings import Setting

INIT_STD = 0.01  # of a classifier's weights; its bias starts at 0 (MoCo, DINO)


class Model(nn.Module):
    """``forward(images)`` gives logits ``[R, B, classes]`` of R classifiers; the first is reported.

    ``trained`` is what has gradients, and what checkpoints hold; it goes into DDP by itself.
    """

    trained: nn.Module
    classifiers = 1
    scaled = False  # whether its gradients pass what runs with AMP

    def distribute(self, device: torch.device) -> None:
        """Average gradients over the processes from now on."""
        if world_size() > 1:
            ids = [device.index] if device.type == "cuda" else None
            wrapped = nn.parallel.DistributedDataParallel(self.trained, ids)
            if ids is None:
                compat.sort_buckets(wrapped)
            self.__dict__["_ddp"] = wrapped  # not a submodule: it holds the same parameters again

    def parameter_groups(self) -> list[dict]:
        """Groups for SGD; ``factor`` is a group's share of the scheduled rate."""
        raise NotImplementedError

    def _run(self, x: Tensor) -> Tensor:
        """Through DDP while training, past it in evaluation."""
        wrapped = self.__dict__.get("_ddp")
        return wrapped(x) if wrapped is not None and self.training else self.trained(x)


class LinearClassifier(Model):
    """Classifiers of one layer each on frozen features, one a learning rate, in the same pass.

    The backbone stays in evaluation mode (batch norm with its running statistics) and gets no
    gradient. All classifiers start from the same values; none sees another.
    """

    def __init__(
        self, backbone: FeatureNetwork, classes: int, rates: Sequence[float], cfg: CfgNode
    ):
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.features, self.rates = cfg.LINEAR.VIT_FEATURES, tuple(rates)
        self.cfg, self.classifiers = cfg, len(self.rates)
        first = new_layer(backbone.linear_channels(self.features), classes)
        self.trained: LinearLayers = LinearLayers(first, len(self.rates))

    def train(self, mode: bool = True) -> "LinearClassifier":
        super().train(mode)
        self.backbone.eval()
        return self

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": list(layer.parameters()), "factor": rate / self.rates[0]}
            for layer, rate in zip(self.trained.layers, self.rates, strict=True)
        ]

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad(), mixed_precision.autocast(self.cfg, images.device):
            features = self.backbone.for_linear(images, self.features)
        return self._run(features.float())


class LinearLayers(nn.Module):
    """R linear layers on the same features ``[B, C]``: ``[R, B, classes]``."""

    def __init__(self, first: nn.Linear, count: int):
        super().__init__()
        self.layers = nn.ModuleList(
            [first, *(nn.Linear(first.in_features, first.out_features) for _ in range(count - 1))]
        )
        for layer in self.layers[1:]:
            layer.load_state_dict(first.state_dict())

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([layer(features) for layer in self.layers])


class Classifier(Model):
    """The whole network: the backbone and a new linear layer on its features."""

    scaled = True

    def __init__(self, backbone: FeatureNetwork, classes: int, setting: Setting, cfg: CfgNode):
        super().__init__()
        network: Any = Network(backbone, classes)
        if cfg.MODEL.CHANNELS_LAST:
            network = network.to(memory_format=torch.channels_last)
        if cfg.MODEL.NORM == "SyncBN" and world_size() > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.trained: Any = network
        self.head_factor = setting.head_lr_factor
        self.cfg = cfg

    def parameter_groups(self) -> list[dict]:
        return [
            {"params": list(self.trained.backbone.parameters()), "factor": 1.0},
            {"params": list(self.trained.fc.parameters()), "factor": self.head_factor},
        ]

    def forward(self, images: Tensor) -> Tensor:
        with mixed_precision.autocast(self.cfg, images.device):
            return self._run(images).float()[None]


class Network(nn.Module):
    """Backbone and classifier: ``[B, 3, S, S]`` → ``[B, classes]``."""

    def __init__(self, backbone: FeatureNetwork, classes: int):
        super().__init__()
        self.backbone, self.fc = backbone, new_layer(backbone.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.backbone(images))


def new_layer(channels: int, classes: int) -> nn.Linear:
    """A classifier that starts as MoCo's and DINO's do."""
    layer = nn.Linear(channels, classes)
    nn.init.normal_(layer.weight, std=INIT_STD)
    nn.init.zeros_(layer.bias)
    return layer


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy of each classifier ``[R]``."""
    return torch.stack([F.cross_entropy(each, labels) for each in logits])
