"""From a checkpoint to a weights file, by way of the proof."""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console import files
from console.errors import EnvironmentLacks, InputError, unknown

from . import keys, layouts, vit, weights
from .prove import Stage, prove
from .prove_vit import prove_vit

TARGETS = {"detectron2": ".pkl", "torchvision": ".pth", "timm": ".pth"}


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

    def __str__(self) -> str:
        fpn = f" and {self.fpn_tensors} of its FPN" if self.fpn_tensors else ""
        rows = [
            f"{self.checkpoint} ({self.layout} layout) -> {self.out} ({self.target})",
            f"  method      {self.method}{_told(self.pretrain)}",
            f"  tensors     {self.tensors} of {self.title}{fpn}, each bit for bit",
            "  proof       both networks on the same input, float32, evaluation mode:",
            f"              {'stage':8s}{'shape':>20s}{'magnitude':>12s}{'difference':>12s}",
        ]
        for stage in self.stages:
            shape = "x".join(map(str, stage.shape))
            rows.append(
                f"              {stage.name:8s}{shape:>20s}"
                f"{stage.magnitude:12.4g}{stage.difference:12.2g}"
            )
        if self.counters_added:
            rows.append(f"  note        {self.counters_added} counters of batches were absent: 0")
        rows += [f"  sha256      {self.sha256}", f"  next        {self.next_command}"]
        return "\n".join(rows)

    @property
    def next_command(self) -> str:
        if self.target == "timm":
            name = vit.SIZES[self.network].timm
            return f'timm.create_model("{name}", num_classes=0, checkpoint_path="{self.out}")'
        if self.target == "torchvision":
            load = f'network.load_state_dict(torch.load("{self.out}"), strict=False)'
            if self.network not in vit.SIZES:
                return load
            options = vit.SIZES[self.network].torchvision.items()
            told = ", ".join(f"{option}={value}" for option, value in options)
            return f"network = torchvision.models.VisionTransformer({told})\n              {load}"
        # Res5 of Detectron2's C4 head is always three bottleneck blocks.
        protocol = "voc_det_c4" if self.depth >= 50 else "coco_mask_fpn_1x"
        folder = Path(self.out).with_suffix("")
        return f"densessl transfer {self.out} --protocol {protocol} -o {folder}_{protocol}"


def convert(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    source: str = "auto",
    target: str = "detectron2",
    force: bool = False,
    method: str | None = None,
) -> Report:
    """Write a checkpoint's backbone (and FPN) for ``target`` and prove it by running both networks.

    A ResNet goes to Detectron2 and torchvision, a vision transformer to torchvision and timm.
    ``source`` is a layout of ``layouts.LAYOUTS`` or 'auto'; ``method`` names the method where the
    layout cannot tell. The proof is made on what is read back from the disk, before the file takes
    its name. Raises InputError when the checkpoint is not understood, when ``out`` exists with
    other contents (unless ``force``) and when the proof fails (ProofFailed); nothing is then
    written.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    _check_target(checkpoint, out, target)
    found = layouts.recognise(weights.read_checkpoint(checkpoint), source, str(checkpoint))
    _check_network(found, checkpoint, out, target)
    source_sha256 = files.sha256(checkpoint)
    facts = _facts(found, source_sha256, method)
    with _says_why(out), files.atomic(out) as stream:
        if target == "detectron2":
            names = keys.detectron2_names(found.depth)
            tensors = {names[name]: t for name, t in found.backbone.items()} | found.fpn
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            weights.write_detectron2(stream, arrays, facts)
        else:
            names = vit.torchvision_names(found.network) if found.is_vit else {}
            names = names if target == "torchvision" else {}
            tensors = {names.get(name, name): t for name, t in found.backbone.items()}
            weights.write_state_dict(stream, tensors, facts)
        stream.flush()
        stages = _prove_file(stream.name, found, target)
        sha256 = files.sha256(stream.name)
        if out.exists() and not force and files.sha256(out) != sha256:
            raise InputError(f"{out} exists with other contents; --force replaces it")
    return Report(
        checkpoint=str(checkpoint),
        layout=found.layout,
        out=str(out),
        target=target,
        method=facts["method"],
        network=found.network,
        title=found.title,
        depth=found.depth,
        tensors=len(found.backbone),
        counters_added=found.counters_added,
        fpn_tensors=len(found.fpn) if target == "detectron2" else 0,
        stages=stages,
        source_sha256=source_sha256,
        sha256=sha256,
        pretrain=found.pretrain,
    )


@contextmanager
def _says_why(out: Path):
    """A full disk or a folder without permission is the environment's fault, in one line."""
    try:
        yield
    except OSError as error:
        raise EnvironmentLacks(f"cannot write {out}: {error.strerror or error}") from None


def _check_target(checkpoint: Path, out: Path, target: str) -> None:
    if target not in TARGETS:
        raise unknown("target", target, TARGETS, "--to")
    if out.suffix != TARGETS[target]:
        raise InputError(
            f"-o is '{out}', but {target} weights are told by the ending {TARGETS[target]}: "
            f"-o {out.with_suffix(TARGETS[target])}"
        )
    if out.is_dir() or out.resolve() == checkpoint.resolve():
        raise InputError(f"-o {out} is {'a folder' if out.is_dir() else 'the checkpoint itself'}")


def _check_network(found: layouts.Source, checkpoint: Path, out: Path, target: str) -> None:
    if found.is_vit and target == "detectron2":
        raise InputError(
            f"{checkpoint} holds a {found.title}, and Detectron2's backbones here are ResNets; "
            f"give it --to timm or --to torchvision, -o {out.with_suffix('.pth')}"
        )
    if target == "timm" and not found.is_vit:
        raise InputError(
            f"{checkpoint} holds a {found.title}, whose names in timm are torchvision's: "
            "--to torchvision"
        )


def _facts(found: layouts.Source, source_sha256: str, method: str | None) -> dict[str, Any]:
    """What travels with the weights: the detector's options that must agree, and their origin."""
    normal = found.normalization
    if found.is_vit:
        network = {"patch_size": vit.PATCH, "image_size": vit.IMAGE}
    else:  # torchvision's ResNet has the stride in the 3x3 convolution
        network = {"stride_in_1x1": False, "depth": found.depth}
    return {
        "format": 1,
        "method": method or found.method,
        "source_sha256": source_sha256,
        "normalization": {  # of 0–255 values, as Detectron2's PIXEL_MEAN and PIXEL_STD
            "pixel_mean": [round(255 * value, 6) for value in normal["mean"]],
            "pixel_std": [round(255 * value, 6) for value in normal["std"]],
        },
        "channel_order": normal["channel_order"],
        "network": found.network,
        "pretrain": found.pretrain,
        **network,
    }


def _prove_file(path: str, found: layouts.Source, target: str) -> list[Stage]:
    """Read the file back and prove that its network is the source's."""
    if target == "detectron2":
        held = weights.read_weights(path)
        return prove(
            found.backbone, found.normalization, held["model"], held["densessl"], found.fpn
        )
    held = weights.read_checkpoint(path)
    if found.is_vit:
        return prove_vit(found.backbone, found.normalization, dict(held), held.densessl, target)
    names = keys.detectron2_names(found.depth)
    renamed = {names.get(name, name): tensor for name, tensor in held.items()}
    return prove(found.backbone, found.normalization, renamed, held.densessl)


def _told(pretrain: dict[str, Any]) -> str:
    shown = {key: pretrain[key] for key in ("dataset", "images", "epochs") if key in pretrain}
    told = ", ".join(f"{key} {value}" for key, value in shown.items())
    return f" ({told})" if told else ""
