"""torchvision's ResNets (v1.5: the stride is in the 3×3) without the classifier: those of He et al.
2016, wide ones (Zagoruyko and Komodakis 2016) and ResNeXts (Xie et al. 2017)."""

from torch import Tensor, nn
from torchvision.models import resnet

RESNETS = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "wide_resnet50_2": resnet.wide_resnet50_2,
    "wide_resnet101_2": resnet.wide_resnet101_2,
    "resnext50_32x4d": resnet.resnext50_32x4d,
    "resnext101_32x8d": resnet.resnext101_32x8d,
    "resnext101_64x4d": resnet.resnext101_64x4d,
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
