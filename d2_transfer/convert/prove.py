"""The proof: both networks run on the same input, and every stage gives the same.

The reference is torchvision's own ResNet with the source's tensors; against it stands Detectron2's
own ResNet with the tensors of the written file, built as that file says (depth, stride, pixel
mean and std, channel order).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from densessl.core.errors import InputError
from densessl.weight_files import keys
from densessl.weight_files.channels import COLOURS, take_channels

from .. import compat
from .weights import resnet_options

TOLERANCE = 1e-5  # of the largest magnitude in the stage: float32 rounding grows with it
SIDES = (97, 65)  # odd, so that a stride in another place shows at the borders
SEED = 0
STAGES = ("stem", "res2", "res3", "res4", "res5")
LAYERS = ("layer1", "layer2", "layer3", "layer4")  # torchvision's names of res2 to res5


class ProofFailed(InputError):
    """The two networks differ; says where."""


@dataclass(frozen=True)
class Stage:
    """One compared output: its shape, the largest |value| and the largest |difference|."""

    name: str
    shape: tuple[int, ...]
    magnitude: float
    difference: float

    @property
    def equal(self) -> bool:
        """Within TOLERANCE of the magnitude, and not zero everywhere (that would prove nothing)."""
        return self.magnitude > 0 and self.difference <= TOLERANCE * self.magnitude


def prove(
    reference: dict[str, Any],
    normalization: dict[str, Any],
    written: dict[str, Any],
    facts: dict[str, Any],
    fpn: dict[str, Any] | None = None,
    stride_in_1x1: bool = False,
) -> list[Stage]:
    """Run both networks in float32 evaluation mode and compare every stage.

    ``reference``: torchvision names -> tensors, with ``normalization`` (mean, std of 0–1 values and
    channel_order); ``written``: Detectron2 names -> arrays of the written file, with its ``facts``;
    ``fpn``: Detectron2's FPN names -> tensors of the source; ``stride_in_1x1``: where the source's
    network has its stride. Raises ProofFailed naming what differs: tensors whose bits differ, and
    stages beyond TOLERANCE.
    """
    import torch

    names = keys.detectron2_names(facts["depth"])
    wanted = {names[name]: tensor for name, tensor in reference.items()} | (fpn or {})
    wrong = tensors_that_differ(wanted, written)
    image = any_image(SIDES, channels_of(facts))
    if fpn:
        image = image[:, :, :96, :64]  # an FPN wants multiples of 32
    expected, got = normalised(image, normalization), normalised_by_detectron2(image, facts)
    with torch.no_grad():
        ours = torchvision_stages(reference, network_of(facts), expected, stride_in_1x1)
        theirs = _detectron2_stages(written, facts, expected)
        if fpn:
            theirs |= _detectron2_fpn(written, facts, expected)
            ours |= _fpn(fpn, ours)
    return compared({"input": expected, **ours}, {"input": got, **theirs}, wrong)


def channels_of(facts: dict[str, Any]) -> int:
    """Of the images that a written file's network takes."""
    return facts.get("channels", COLOURS)


def any_image(sides: Sequence[int], channels: int):
    """Whole numbers of 0–255, always the same ones: ``[1, channels, *sides]``."""
    import torch

    shape = (1, channels, *sides)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(SEED))


def compared(ours: dict[str, Any], theirs: dict[str, Any], wrong: list[str]) -> list[Stage]:
    """The stages, if all are equal and no tensor is ``wrong``; else ProofFailed names them."""
    stages = [_compare(name, value, theirs[name]) for name, value in ours.items()]
    unequal = [
        f"{s.name}: largest difference {s.difference:.3g} at magnitude {s.magnitude:.3g}"
        for s in stages
        if not s.equal
    ]
    if wrong or unequal:
        shown = wrong[:8] + ([f"… and {len(wrong) - 8} more tensors"] if len(wrong) > 8 else [])
        raise ProofFailed(
            "the proof failed, nothing was written:\n  " + "\n  ".join(unequal + shown)
        )
    return stages


def _compare(name: str, ours, theirs) -> Stage:
    if ours.shape != theirs.shape:
        raise ProofFailed(f"{name}: shape {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
    magnitude, difference = ours.abs().max().item(), (ours - theirs).abs().max().item()
    return Stage(name, tuple(ours.shape), magnitude, difference)


def tensors_that_differ(wanted: dict[str, Any], written: dict[str, Any]) -> list[str]:
    """Every tensor of the source must be in the file bit for bit, and nothing else may be."""
    import torch

    wrong = [f"{name}: not in the source" for name in written if name not in wanted]
    for name, tensor in wanted.items():
        if name not in written:
            wrong.append(f"{name}: missing")
        elif not torch.equal(torch.as_tensor(written[name]), tensor):
            wrong.append(f"{name}: not the source's tensor")
    return wrong


def normalised(image, normalization: dict[str, Any]):
    """The source's view of an image [B, C, H, W] of 0–255: RGB, or its channels as stored."""
    import torch

    mean = torch.tensor(normalization["mean"], dtype=torch.float64)[:, None, None]
    std = torch.tensor(normalization["std"], dtype=torch.float64)[:, None, None]
    image = image.flip(1) if normalization["channel_order"] == "BGR" else image
    return ((image / 255.0 - mean) / std).float()


def normalised_by_detectron2(image, facts: dict[str, Any]):
    """What a detector with the written pixel mean, std and channel order feeds its backbone."""
    import torch

    image = (image.flip(1) if facts["channel_order"] == "BGR" else image).float()
    mean = torch.tensor(facts["normalization"]["pixel_mean"])[:, None, None]
    std = torch.tensor(facts["normalization"]["pixel_std"])[:, None, None]
    return (image - mean) / std


def network_of(facts: dict[str, Any]) -> str:
    """torchvision's name of the ResNet that a written file's facts describe."""
    return facts.get("network", f"resnet{facts['depth']}")


def torchvision_stages(state, network_name: str, image, stride_in_1x1: bool) -> dict[str, Any]:
    """The outputs of torchvision's ResNet with these tensors, by the names of STAGES."""
    import torch
    from torchvision.models import resnet

    with torch.device("meta"):  # no time for initial weights
        network = getattr(resnet, network_name)()
        of_channels(network, image.shape[1])
    network.fc = torch.nn.Identity()
    network.load_state_dict(state, assign=True)  # strict
    return resnet_stages(network, network.relu, image, stride_in_1x1)


def resnet_stages(network, activation, image, stride_in_1x1: bool) -> dict[str, Any]:
    """The outputs of torchvision's or timm's ResNet, by the names of STAGES."""
    if stride_in_1x1:
        stride_as_caffe(network)
    network.eval()
    x = network.maxpool(activation(network.bn1(network.conv1(image))))
    outputs = {"stem": x}
    for name, layer in zip(STAGES[1:], LAYERS, strict=True):
        x = outputs[name] = getattr(network, layer)(x)
    return outputs


def of_channels(network, channels: int) -> None:
    """Let a network of torchvision's, which is of three channels, take images of so many."""
    if channels != COLOURS:
        take_channels(network, channels)


def stride_as_caffe(network) -> None:
    """Move the stride of a bottleneck ResNet (torchvision's or timm's) into the 1x1 convolution."""
    for layer in LAYERS[1:]:
        first = getattr(network, layer)[0]
        first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)


def load(network, tensors: dict[str, Any], title: str) -> None:
    """Give a network on the meta device exactly these tensors; else ProofFailed."""
    try:
        network.load_state_dict(tensors, assign=True)  # strict
    except RuntimeError as error:
        raise ProofFailed(f"{title} does not take the tensors: {error}") from None


def _detectron2_config(facts: dict[str, Any]):
    cfg = compat.get_cfg()
    for key, value in resnet_options(facts).items():
        setattr(cfg.MODEL.RESNETS, key, value)
    cfg.MODEL.RESNETS.OUT_FEATURES = list(STAGES)
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    return cfg


def _detectron2_stages(written, facts: dict[str, Any], image) -> dict[str, Any]:
    import torch

    compat.setup()
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    with torch.device("meta"):
        shape = ShapeSpec(channels=channels_of(facts))
        network = build_resnet_backbone(_detectron2_config(facts), shape)
    tensors = {n: torch.as_tensor(a) for n, a in written.items() if not n.startswith("backbone.")}
    load(network, tensors, "Detectron2's ResNet")
    return network.eval()(image)


# FPN: a file may hold some of its levels (ReSim: lateral 3–5, output 3–4) ----------------------


def _fpn(state: dict[str, Any], stages: dict[str, Any]) -> dict[str, Any]:
    """The FPN levels that ``state`` determines, from its formula (Lin et al. 2017, figure 3)."""
    from torch.nn import functional as F

    def layer(name: str, x):
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)
        norm = {k: state.get(f"{name}.norm.{k}") for k in ("weight", "bias")}
        if norm["weight"] is None:
            return x
        mean, var = (state[f"{name}.norm.{k}"] for k in ("running_mean", "running_var"))
        return F.batch_norm(x, mean, var, norm["weight"], norm["bias"])

    outputs, top = {}, None
    for level in (5, 4, 3, 2):
        if f"backbone.fpn_lateral{level}.weight" not in state:
            break  # the levels below need this one
        x = layer(f"backbone.fpn_lateral{level}", stages[f"res{level}"])
        if top is not None:
            x = x + F.interpolate(top, scale_factor=2.0, mode="nearest")
        top = x
        if f"backbone.fpn_output{level}.weight" in state:
            outputs[f"p{level}"] = layer(f"backbone.fpn_output{level}", x)
    return outputs


def _detectron2_fpn(written, facts: dict[str, Any], image) -> dict[str, Any]:
    import torch
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone

    laterals = [n for n in (2, 3, 4, 5) if f"backbone.fpn_lateral{n}.weight" in written]
    cfg = _detectron2_config(facts)
    cfg.MODEL.FPN.IN_FEATURES = [f"res{level}" for level in laterals]
    cfg.MODEL.FPN.OUT_CHANNELS = len(written[f"backbone.fpn_lateral{laterals[-1]}.weight"])
    cfg.MODEL.FPN.NORM = "BN" if any(".norm." in n for n in written if "fpn_" in n) else ""
    with torch.device("meta"):
        network = build_resnet_fpn_backbone(cfg, ShapeSpec(channels=channels_of(facts)))
    network.to_empty(device="cpu")  # the output convolutions that the file lacks stay arbitrary
    tensors = {
        name.removeprefix("backbone.") if "fpn_" in name else f"bottom_up.{name}": torch.as_tensor(
            a
        )
        for name, a in written.items()
    }
    loaded = network.load_state_dict(tensors, strict=False)
    if loaded.unexpected_keys:
        raise ProofFailed(f"Detectron2's FPN has no place for {', '.join(loaded.unexpected_keys)}")
    return network.eval()(image)
