"""ResNets (He et al. 2016, torchvision's v1.5: the stride is in the 3×3) without the classifier."""

from torch import Tensor, nn
from torchvision.models import resnet

RESNETS = {
    "resnet18": resnet.resnet18,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
}
STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
LEVELS = tuple(STRIDES)


class ResNet(nn.Module):
    """A torchvision ResNet that returns its feature levels, ``layer1`` to ``layer4``.

    ``channels`` and ``strides`` map a level to its C and to its pixels a position.
    """

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module

    def __init__(self, network: resnet.ResNet):
        super().__init__()
        for name in ("conv1", "bn1", "relu", "maxpool", *LEVELS):
            setattr(self, name, getattr(network, name))
        last = "conv3" if hasattr(network.layer1[0], "conv3") else "conv2"
        self.channels = {
            level: getattr(getattr(self, level)[-1], last).out_channels for level in LEVELS
        }
        self.strides = dict(STRIDES)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        levels = {}
        for level in LEVELS:
            x = levels[level] = getattr(self, level)(x)
        return levels
