"""timm's networks in Detectron2: as a backbone, and a pyramid on it."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial

from densessl.core.errors import InputError
from densessl.weight_files import timm_networks

from .. import compat
from ..config import VITDET
from ..convert.weights import images_that_differ, read_weights

compat.setup()
import torch  # noqa: E402
from detectron2.config import configurable  # noqa: E402
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec, get_norm  # noqa: E402
from detectron2.modeling import BACKBONE_REGISTRY  # noqa: E402
from detectron2.modeling.backbone import FPN, Backbone  # noqa: E402
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7  # noqa: E402
from torch import nn  # noqa: E402

LEVELS = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}  # stride -> name, as of a ResNet
LAST = "last"  # the name of a plain network's only level
NORMS = ("BN", "SyncBN", "naiveSyncBN", "FrozenBN")


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """A network of timm's: images ``[B, 3, H, W]`` → ``res2`` … ``res5`` at strides 4, 8, 16, 32.

    Of a plain network (a ViT) it is the one level ``last``. Nothing is loaded here: weights come
    by MODEL.WEIGHTS, under the prefix ``timm_network``.
    """

    @configurable
    def __init__(
        self,
        network: str,
        *,
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        out_features: Sequence[str] | None = None,
        channels: int = 3,
        drop_path: float = 0.0,
    ):
        """``network``: timm's name, as ``convnext_tiny``.

        ``norm``: what takes the place of its batch norm, if it has any. ``freeze_at``: 1 freezes
        what comes before the first level, 2 that level too, and so on, with FrozenBN there.
        ``out_features``: some of the levels; all unless named. ``channels``: of the images.
        ``drop_path``: the rate of the last block.
        Raises InputError for a name that timm lacks, and for another norm.
        """
        super().__init__()
        if norm not in NORMS:
            raise InputError(
                f"MODEL.RESNETS.NORM is '{norm}'; allowed with a network of timm's: "
                f"{', '.join(NORMS)}"
            )
        name = network.removeprefix(timm_networks.PREFIX)
        made = timm_networks.build(
            f"{timm_networks.PREFIX}{name}", drop_path, "MODEL.BACKBONE.TIMM", channels
        )
        timm_networks.replace_norms(made, partial(get_norm, norm))
        self.timm_network = made
        self._freeze(freeze_at)
        if not made.plain and set(made.strides.values()) - LEVELS.keys():
            raise InputError(
                f"{name} has its levels at strides {', '.join(map(str, made.strides.values()))}; "
                "allowed in a detector: 4, 8, 16 and 32, or one stride for all"
            )
        if made.plain:
            known = {LAST: [*made.strides][-1]}
        else:
            known = {LEVELS[stride]: level for level, stride in made.strides.items()}
        self.level_of = {feature: known[feature] for feature in out_features or known}
        self._out_features = [*self.level_of]
        self._out_feature_strides = {n: made.strides[at] for n, at in self.level_of.items()}
        self._out_feature_channels = {n: made.channels[at] for n, at in self.level_of.items()}

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec) -> dict:
        return {
            "network": network_of(cfg),
            "channels": input_shape.channels,
            "norm": cfg.MODEL.RESNETS.NORM,
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
            "drop_path": cfg.MODEL.BACKBONE.get("DROP_PATH", 0.0),
        }

    @property
    def size_divisibility(self) -> int:
        return max(self._out_feature_strides.values())

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        levels = self.timm_network(images)
        return {name: levels[level] for name, level in self.level_of.items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self.level_of
        }

    def layers(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Each parameter and its layer: 0 before the blocks, 1 to n in them, n + 1 behind them.

        Raises InputError for a network that has no row of blocks, as a ViT has.
        """
        made = self.timm_network
        if not made.plain or not hasattr(made, "blocks"):
            raise InputError(
                f"SOLVER.LAYER_DECAY is for ViTs, and {type(made).__name__} is none; allowed: 1.0"
            )
        layer = 0
        for name, parameter in made.named_parameters():  # in the order in which they are used
            first, _, rest = name.partition(".")
            if first == "blocks":
                layer = int(rest.partition(".")[0]) + 1
            elif layer:
                layer = len(made.blocks) + 1
            yield parameter, layer

    def _freeze(self, freeze_at: int) -> None:
        made, names = self.timm_network, [name for name, _ in self.timm_network.named_parameters()]
        modules = [*made.modules_of.values()]
        if not 0 <= freeze_at <= len(modules) + 1:
            raise InputError(
                f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; allowed: 0 to {len(modules) + 1}"
            )
        if not freeze_at:
            return
        # Parameters stand in the order in which they are used.
        last = f"{modules[max(freeze_at, 2) - 2]}."
        within = [at for at, name in enumerate(names) if name.startswith(last)]
        frozen = set(names[: within[0] if freeze_at == 1 else within[-1] + 1])
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(name not in frozen)
        norms = {name.removesuffix(".weight") for name in frozen}
        timm_networks.replace_norms(made, FrozenBatchNorm2d, norms)


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """The pyramid on a network of timm's: ``p2`` to ``p6``, or from where MODEL.FPN says.

    It is Detectron2's FPN where the network has levels at several strides, and ViTDet's simple
    feature pyramid where it is plain. The network is MODEL.BACKBONE.TIMM or, where there is no such
    key, that of the weights file, MODEL.WEIGHTS. Reads MODEL.RESNETS.NORM, MODEL.BACKBONE.FREEZE_AT
    and MODEL.FPN (of a plain network IN_FEATURES, the strides by their names, and OUT_CHANNELS).
    """
    return _pyramid(cfg, TimmBackbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_timm_fpn_p5_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """As :func:`build_timm_fpn_backbone`, with p6 and p7 by convolutions from p5."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    return _pyramid(cfg, TimmBackbone(cfg, input_shape), LastLevelP6P7(channels, channels, "p5"))


@BACKBONE_REGISTRY.register()
def build_timm_retinanet_fpn_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """As :func:`build_timm_fpn_backbone`, with p6 and p7 by convolutions from res5, as RetinaNet
    has them; from p5 on a plain network, which has no level of stride 32."""
    bottom_up, channels = TimmBackbone(cfg, input_shape), cfg.MODEL.FPN.OUT_CHANNELS
    if bottom_up.timm_network.plain:
        return _pyramid(cfg, bottom_up, LastLevelP6P7(channels, channels, "p5"))
    coarsest = bottom_up.output_shape()["res5"].channels
    return _pyramid(cfg, bottom_up, LastLevelP6P7(coarsest, channels, "res5"))


@BACKBONE_REGISTRY.register()
def build_vitdet_backbone(cfg, input_shape: ShapeSpec) -> Backbone:
    """ViTDet's: the simple feature pyramid on a ViT of timm's, images padded to a square of
    INPUT.LSJ.SIZE; InputError for another network."""
    bottom_up = TimmBackbone(cfg, input_shape)
    if not bottom_up.timm_network.plain:
        raise InputError(
            f"MODEL.BACKBONE.NAME is {VITDET}, which is made of a ViT; "
            f"{type(bottom_up.timm_network).__name__} is none"
        )
    return SimpleFeaturePyramid(bottom_up, cfg.MODEL.FPN.OUT_CHANNELS, square=cfg.INPUT.LSJ.SIZE)


def _pyramid(cfg, bottom_up: TimmBackbone, top_block: LastLevelMaxPool | LastLevelP6P7) -> Backbone:
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    if bottom_up.timm_network.plain:
        levels = cfg.MODEL.FPN.IN_FEATURES or LEVELS.values()
        return SimpleFeaturePyramid(bottom_up, channels, levels, top_block)
    return FPN(
        bottom_up,
        cfg.MODEL.FPN.IN_FEATURES,
        channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class SimpleFeaturePyramid(Backbone):
    """``p2`` to ``p5`` (strides 4 to 32) and what is above out of a plain network's last map.

    Li et al. 2022, "Exploring Plain Vision Transformer Backbones for Object Detection": the map is
    brought to each stride by transposed convolutions or max pooling, then go a 1x1 and a 3x3
    convolution, each with a LayerNorm over channels; p6 is p5, every second position, unless the
    top block is another of Detectron2's.
    """

    def __init__(
        self,
        bottom_up: TimmBackbone,
        out_channels: int,
        levels: Collection[str] = tuple(LEVELS.values()),
        top_block: LastLevelMaxPool | LastLevelP6P7 | None = None,
        square: int = 0,
    ):
        """``levels``: which of them, by the name that a ResNet's of the stride has. ``square``: of
        so many pixels (a multiple of 32), to which Detectron2 pads the images; 0: as they are."""
        super().__init__()
        self.bottom_up, self.square = bottom_up, square
        self.top_block: LastLevelMaxPool | LastLevelP6P7 = top_block or LastLevelMaxPool()
        (stride,), (channels,) = (
            each.values()
            for each in (bottom_up._out_feature_strides, bottom_up._out_feature_channels)
        )
        if stride not in LEVELS:
            raise InputError(
                f"the network has patches of {stride} pixels; a pyramid at the strides 4, 8, 16 "
                f"and 32 needs patches of {', '.join(map(str, LEVELS))}"
            )
        self.stages = nn.ModuleDict()
        for target, name in LEVELS.items():
            if name in levels:
                self.stages[f"p{name[-1]}"] = _stage(channels, out_channels, stride, target)
        self.top = [f"p{6 + n}" for n in range(self.top_block.num_levels)]
        self._out_features = [*self.stages, *self.top]
        self._out_feature_strides = {name: 2 ** int(name[1]) for name in self._out_features}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    @property
    def size_divisibility(self) -> int:
        return self.square or max(LEVELS)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        (last,) = self.bottom_up(images).values()
        levels = {name: stage(last) for name, stage in self.stages.items()}
        top = self.top_block(levels[self.top_block.in_feature])
        return levels | dict(zip(self.top, top, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of ``[B, C, h, w]``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def layer_norm(channels: int) -> ChannelNorm:
    """The norm of the pyramid and of ViTDet's heads."""
    return ChannelNorm(channels, eps=1e-6)


def _stage(channels: int, out_channels: int, stride: int, target: int) -> nn.Sequential:
    """From a map of ``stride`` to ``out_channels`` at the stride ``target``."""
    layers: list[nn.Module] = []
    while stride > target:
        if layers:
            layers += [layer_norm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels, stride = channels // 2, stride // 2
    if stride < target:
        layers.append(nn.MaxPool2d(target // stride))
    for side, inputs in ((1, channels), (3, out_channels)):
        layers += [
            nn.Conv2d(inputs, out_channels, side, padding=side // 2, bias=False),
            layer_norm(out_channels),
        ]
    return nn.Sequential(*layers)


def network_of(cfg) -> str:
    """The network of timm's that a config means; InputError where it means none."""
    named = cfg.MODEL.BACKBONE.get("TIMM", "")
    if named:
        return named
    path = cfg.MODEL.WEIGHTS
    if not path.endswith(".pkl"):
        raise InputError(
            f"MODEL.BACKBONE.TIMM is empty and MODEL.WEIGHTS '{path}'; give one: timm's name of a "
            "network, or a .pkl of densessl convert that holds one"
        )
    facts = read_weights(path).get("densessl") or {}
    network = facts.get("network", "")
    if not timm_networks.is_timm(network):
        raise InputError(f"MODEL.WEIGHTS: {path} holds {network or 'no known network'}, not timm's")
    if wrong := images_that_differ(cfg, facts):
        raise InputError(
            f"{'; '.join(wrong)}: densessl.d2_transfer.backbone_choice.use_weights(cfg, path) sets "
            "what weights need"
        )
    return network
