"""What a conversion did and proved, as people read it."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densessl.weight_files import images, timm_networks, vit
from densessl.weight_files.channels import COLOURS

from .prove import Stage

HUB = "hub"  # the target that is a folder, of hub.py
STRIDES = (  # torchvision's and timm's networks as Caffe has them
    "for layer in (network.layer2, network.layer3, network.layer4):",
    "    layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)",
)


@dataclass(frozen=True)
class Report:
    """What a conversion did and proved; ``str()`` is what people read."""

    checkpoint: str
    layout: str
    out: str
    target: str
    method: str
    network: str  # resnet50, vit_small
    title: str  # ResNet-50, ViT-S/16
    depth: int | None  # of a ResNet
    tensors: int  # of the backbone
    counters_added: int
    fpn_tensors: int
    stages: list[Stage]
    source_sha256: str
    sha256: str
    pretrain: dict[str, Any]
    summary: str = ""  # layout and branch in words
    branch: str = ""
    other: str = ""  # the branch that was left
    place: str = ""  # where in the file the backbone lies
    channels: int = COLOURS  # of the images
    images: str = ""  # their normalisation
    images_by: str = ""  # who says so; empty: nobody, it is assumed
    stride_in_1x1: bool = False
    detector_options: dict[str, Any] = field(default_factory=dict)  # that a protocol must be given
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        fpn = f" and {self.fpn_tensors} of its FPN" if self.fpn_tensors else ""
        rows = [
            f"{self.checkpoint}: {self.summary} -> {self.out} ({self.target})",
            f"  method      {self.method}{pretraining_text(self.pretrain)}",
            f"  tensors     {self.tensors} of {self.title}{fpn}, each bit for bit{self._from()}",
            f"  images      {self.images}, {images.source(self.images_by)}",
            f"  proof       equal to {self._proved_against()} with these weights",
            "              (what the original's own code computes is not in the file); both on the",
            "              same input, float32, evaluation mode:",
            f"              {'stage':8s}{'shape':>20s}{'magnitude':>12s}{'difference':>12s}",
        ]
        for stage in self.stages:
            shape = "x".join(map(str, stage.shape))
            rows.append(
                f"              {stage.name:8s}{shape:>20s}"
                f"{stage.magnitude:12.4g}{stage.difference:12.2g}"
            )
        notes = list(self.notes)
        if self.counters_added:
            notes.append(f"{self.counters_added} counters of batches were absent: 0")
        if self.other:
            notes.append(f"the {self.other} branch was left; --branch {self.other} takes it")
        rows += [f"  note        {note}" for note in notes]
        rows += [f"  sha256      {self.sha256}", f"  next        {self.next_command}"]
        return "\n".join(rows)

    def _from(self) -> str:
        return f", from {self.place}*" if self.place.strip(":") else ""

    def _proved_against(self) -> str:
        """The network whose outputs the written file's were compared with."""
        if self.depth is not None:
            stride = ", the stride in its 1x1 convolutions," if self.stride_in_1x1 else ""
            return f"torchvision's {self.network}{stride}"
        if timm_networks.is_timm(self.network):
            return f"{self.title}, as timm itself gives its features,"
        if self.target == "torchvision":
            return f"timm's {vit.SIZES[self.network].timm}"
        return f"torchvision's VisionTransformer of that size ({self.title})"

    @property
    def next_command(self) -> str:
        if self.target == "detectron2":
            # Res5 of Detectron2's C4 head is always three bottleneck blocks.
            protocol = "voc_det_c4" if (self.depth or 0) >= 50 else "coco_mask_fpn_1x"
            if self.channels != COLOURS:
                protocol, words = "custom_det", ["--train", "ANNOTATIONS", "-o", "OUT"]
            else:
                words = ["-o", f"{Path(self.out).with_suffix('')}_{protocol}"]
            words += [str(word) for pair in self.detector_options.items() for word in pair]
            return shlex.join(
                ["densessl", "transfer", str(self.out), "--protocol", protocol, *words]
            )
        if self.target == HUB:
            return f'timm.create_model("local-dir:{self.out}", pretrained=True, num_classes=0)'
        if timm_networks.is_timm(self.network):
            return "\n              ".join(self._with_timm())
        if self.target == "torchvision":
            lines = self._with_torchvision()
        else:
            name = vit.SIZES[self.network].timm if self.depth is None else self.network
            options = f'num_classes=0{self._in_chans}, checkpoint_path="{self.out}"'
            lines = [f'timm.create_model("{name}", {options})']
        if self.stride_in_1x1:
            first = lines[0] if lines[0].startswith("network =") else f"network = {lines[0]}"
            lines = [first, *STRIDES, *lines[1:]]
        return "\n              ".join(lines)

    @property
    def _in_chans(self) -> str:
        return "" if self.channels == COLOURS else f", in_chans={self.channels}"

    def _with_timm(self) -> list[str]:
        """What gives none of the levels is not in the file."""
        name = self.network.removeprefix(timm_networks.PREFIX)
        read = f'torch.load("{self.out}")'
        if self.target == "safetensors":
            read = f'safetensors.torch.load_file("{self.out}")'
        return [
            f'network = timm.create_model("{name}", num_classes=0{self._in_chans})',
            f"network.load_state_dict({read}, strict=False)",
        ]

    def _with_torchvision(self) -> list[str]:
        load = f'network.load_state_dict(torch.load("{self.out}"), strict=False)'
        if self.depth is not None:
            conv1 = f"torch.nn.Conv2d({self.channels}, 64, 7, 2, 3, bias=False)"
            return [
                f"network = torchvision.models.{self.network}()",
                *self._with_first(f"conv1 = {conv1}"),
                load,
            ]
        options = vit.SIZES[self.network].torchvision.items()
        arguments = ", ".join(f"{option}={value}" for option, value in options)
        patches = f"torch.nn.Conv2d({self.channels}, {vit.SIZES[self.network].width}, 16, 16)"
        return [
            f"network = torchvision.models.VisionTransformer({arguments})",
            *self._with_first(f"conv_proj = {patches}"),
            load,
        ]

    def _with_first(self, layer: str) -> list[str]:
        """The line that makes the first layer, where the library makes one of three channels."""
        return [] if self.channels == COLOURS else [f"network.{layer}"]


def pretraining_text(pretrain: dict[str, Any]) -> str:
    """' (dataset coco, images 118287, epochs 200)', as far as it is known."""
    keys = ("dataset", "images", "epochs", "range")
    shown = {key: pretrain[key] for key in keys if key in pretrain}
    text = ", ".join(f"{key} {value}" for key, value in shown.items())
    return f" ({text})" if text else ""
