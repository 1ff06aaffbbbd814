"""Backbones whose steps take next to no time: convolutions that end at stride 32."""

from torch import nn


def _stage(channels: int, side: int, norm) -> nn.Sequential:
    """A convolution of its own stride, to 8 channels."""
    return nn.Sequential(nn.Conv2d(channels, 8, side, side, bias=False), norm(8), nn.ReLU())


class Small(nn.Module):
    """Levels ``layer3`` and ``layer4`` at strides 16 and 32, of 8 channels each."""

    def __init__(self, norm):
        super().__init__()
        self.channels = {"layer3": 8, "layer4": 8}
        self.first = _stage(3, 16, norm)
        self.last = _stage(8, 2, norm)

    def forward(self, images):
        layer3 = self.first(images)
        return {"layer3": layer3, "layer4": self.last(layer3)}


class SmallPyramid(nn.Module):
    """Levels ``layer1`` to ``layer4`` at strides 4, 8, 16 and 32, of 8 channels each."""

    def __init__(self, norm):
        super().__init__()
        self.channels = {f"layer{n}": 8 for n in range(1, 5)}
        self.stages = nn.ModuleDict(
            {
                name: _stage(8, 2, norm) if n else _stage(3, 4, norm)
                for n, name in enumerate(self.channels)
            }
        )

    def forward(self, images):
        levels = {}
        for name, stage in self.stages.items():
            images = levels[name] = stage(images)
        return levels
