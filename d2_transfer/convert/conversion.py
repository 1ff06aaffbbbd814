"""From a checkpoint to a weights file, by way of the proof."""

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from densessl.core import files
from densessl.core.errors import EnvironmentLacks, InputError, unknown
from densessl.weight_files import images, keys, reading, safetensors, timm_networks, vit
from densessl.weight_files.channels import COLOURS, for_channels, repeated
from densessl.weight_files.recognise import Source, first_layer, from_file

from .. import compat
from . import weights
from .prove import Stage, prove
from .prove_timm import prove_network, prove_timm, prove_vit
from .report import HUB, Report

TARGETS = {  # the first ending is the one that messages name
    "detectron2": (".pkl",),
    "torchvision": (".pth", ".pt"),
    "timm": (".pth", ".pt"),
    "safetensors": (".safetensors",),
}


def convert(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    source: str = "auto",
    target: str = "auto",
    force: bool = False,
    method: str | None = None,
    branch: str | None = None,
    pretrain: dict[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str | None = None,
    stride_in_1x1: bool | None = None,
    channels: int | None = None,
) -> Report:
    """Write a checkpoint's backbone (and FPN) for ``target`` and prove it by running both networks.

    Every network goes to Detectron2, timm and safetensors (timm's names, which for a ResNet are
    torchvision's), a ResNet and DINO's ViTs to torchvision, too. ``target`` 'auto' follows the
    ending of ``out``, and for .pth the network: torchvision for a ResNet, timm for all else.
    ``source`` is a layout of ``layouts.LAYOUTS``, 'CONTAINER:PREFIX', a network of timm's
    (``timm/convnext_tiny``) or 'auto'; ``branch`` chooses between a file's two networks; ``method``
    names the method where the layout cannot tell, ``pretrain`` the facts of a pretraining that the
    file does not tell (``dataset``, ``epochs``). ``mean``, ``std`` (a number a channel, of 0–1 or
    of 0–255 images), ``channel_order`` and ``stride_in_1x1`` count over what the file says or what
    is assumed. The proof is made on what is read back from the disk, before the file takes its
    name. Raises InputError when the checkpoint is not understood or says that it is a variant, when
    ``out`` exists with other contents (unless ``force``) and when the proof fails (ProofFailed);
    nothing is then written.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    _check_target(checkpoint, out, target)
    _, found = from_file(checkpoint, source, branch)
    found = _with_facts(found, pretrain or {})
    found = with_images(found, mean, std, channel_order, stride_in_1x1)
    found = _with_channels(found, channels)
    target = _target(target, out, found)
    if found.is_timm and target == "torchvision":
        raise InputError(
            f"{checkpoint} holds {found.title}, whose names torchvision does not have; "
            f"give it --to timm, -o {out.with_suffix('.pth')}"
        )
    if found.is_vit and target == "detectron2":  # a pyramid on timm's network, of the same tensors
        found = replace(found, network=f"{timm_networks.PREFIX}{vit.SIZES[found.network].timm}")
    source_sha256 = files.sha256(checkpoint)
    facts = _facts(found, source_sha256, method)
    with _says_why(out), files.atomic(out) as stream:
        _write(stream, found, target, facts)
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
        summary=found.summary,
        branch=found.branch,
        other=found.other,
        place=found.place,
        channels=found.channels,
        images=images.words(found.images),
        images_by=found.images.by,
        stride_in_1x1=found.stride_in_1x1,
        detector_options=weights.options_beside_resnet50(facts),
        notes=found.notes,
    )


@contextmanager
def _says_why(out: Path):
    """A full disk or a folder without permission is the environment's fault, in one line."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"-o {out}: a part of its path is a file, or it is a folder") from None
    except OSError as error:
        raise EnvironmentLacks(f"cannot write {out}: {error.strerror or error}") from None


def _with_facts(found: Source, given: dict[str, Any]) -> Source:
    """The facts given beside those that the file tells, which count where both do."""
    stated = found.pretrain or {}
    other = [f"{key} {stated[key]}" for key in given if key in stated and stated[key] != given[key]]
    notes = [f"the file says itself: {', '.join(other)}; --pretrain is not taken"] if other else []
    return replace(found, pretrain=given | stated, notes=[*found.notes, *notes])


def with_images(
    found: Source,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channel_order: str | None,
    stride_in_1x1: bool | None,
) -> Source:
    """``found`` with what people say of the images and the stride, which counts over the file.

    Arguments as for :func:`convert`. InputError for those that cannot be.
    """
    if channel_order not in (None, *images.ORDERS):
        raise unknown("channel order", channel_order, images.ORDERS, "--channel-order")
    if stride_in_1x1 and (found.depth or 0) < 50:
        raise InputError(
            f"--stride-in-1x1 is for ResNets with bottleneck blocks (50 and deeper), and this is a "
            f"{found.title}"
        )
    notes = list(found.notes)
    given = images.given(found.images, mean, std, channel_order, stride_in_1x1, notes)
    return replace(found, images=given, notes=notes)


def _with_channels(found: Source, channels: int | None) -> Source:
    """``found`` for images of so many channels, its first layer made of that of three."""
    if channels in (None, found.channels):
        return found
    if found.channels != COLOURS or channels is None or channels < 1:
        allowed = "1 or more" if found.channels == COLOURS else found.channels
        raise InputError(
            f"images of {channels} channels are asked for (--channels, in transfer INPUT.CHANNELS)"
            f", but the network takes {found.channels}; allowed: {allowed}"
        )
    state, changes = for_channels(found.backbone, first_layer(found.network), channels)
    normal = found.normalization
    normal = {name: repeated(normal[name], channels) for name in ("mean", "std")}
    facts = replace(found.images, normalization=normal | {"channel_order": images.AS_STORED})
    return replace(found, backbone=state, images=facts, notes=[*found.notes, *changes])


def _check_target(checkpoint: Path, out: Path, target: str) -> None:
    if target not in (*TARGETS, "auto"):
        raise unknown("target", target, [*TARGETS, HUB, "auto"], "--to")
    known = sorted({ending for endings in TARGETS.values() for ending in endings})
    if target == "auto" and out.suffix not in known:
        raise InputError(f"-o is '{out}', whose ending is none of {', '.join(known)}")
    if target != "auto" and out.suffix not in TARGETS[target]:
        ending = TARGETS[target][0]
        raise InputError(
            f"-o is '{out}', but {target} weights are told by the ending {ending}: "
            f"-o {out.with_suffix(ending)}"
        )
    if out.is_dir() or out.resolve() == checkpoint.resolve():
        raise InputError(f"-o {out} is {'a folder' if out.is_dir() else 'the checkpoint itself'}")


def _target(asked: str, out: Path, found: Source) -> str:
    if asked != "auto":
        return asked
    matching = [name for name, endings in TARGETS.items() if out.suffix in endings]
    return matching[0] if len(matching) == 1 else "torchvision" if found.resnet else "timm"


def _write(stream, found: Source, target: str, facts: dict[str, Any]) -> None:
    if target == "detectron2":
        names = detectron2_names(found)
        tensors = {names[name]: t for name, t in found.backbone.items()} | found.fpn
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        weights.write_detectron2(stream, arrays, facts)
        return
    names = vit.torchvision_names(found.network) if found.is_vit else {}
    names = names if target == "torchvision" else {}
    tensors = {names.get(name, name): t for name, t in found.backbone.items()}
    write = safetensors.write if target == "safetensors" else weights.write_state_dict
    write(stream, tensors, facts)


def detectron2_names(found: Source) -> dict[str, str]:
    """Detectron2's name of every backbone tensor."""
    if found.depth is not None:
        return keys.detectron2_names(found.depth)
    return {name: timm_networks.IN_DETECTOR + name for name in found.backbone}


def _facts(found: Source, source_sha256: str, method: str | None) -> dict[str, Any]:
    """What travels with the weights: the detector's options that must agree, and their origin."""
    normal = found.normalization
    network: dict[str, Any] = {}
    if found.channels != COLOURS:
        network = {"channels": found.channels}
    if found.is_vit:
        network |= {"patch_size": vit.PATCH, "image_size": vit.IMAGE}
    elif found.resnet:  # torchvision's has the stride in the 3x3 convolution
        network |= {"stride_in_1x1": found.stride_in_1x1, "depth": found.depth}
        if (found.resnet.groups, found.resnet.width) != (1, 64):
            network |= {"num_groups": found.resnet.groups, "width_per_group": found.resnet.width}
    return {
        "format": 1,
        "method": method or found.method,
        "branch": found.branch,
        "source_sha256": source_sha256,
        "normalization": {  # of 0–255 values, as Detectron2's PIXEL_MEAN and PIXEL_STD
            "pixel_mean": [round(255 * value, 6) for value in normal["mean"]],
            "pixel_std": [round(255 * value, 6) for value in normal["std"]],
        },
        "channel_order": normal["channel_order"],
        "images_by": found.images.by,  # who says so; empty: assumed
        "network": found.network,
        "pretrain": found.pretrain,
        **network,
    }


def _prove_file(path: str, found: Source, target: str) -> list[Stage]:
    """Read the file back and prove that its network is the source's."""
    normalization, stride = found.normalization, found.stride_in_1x1
    if found.is_timm:
        if target == "detectron2":
            weights_file = weights.read_weights(path)
            written, facts = weights_file["model"], weights_file["densessl"]
        else:
            state = reading.read_checkpoint(path)
            written, facts = dict(state), state.densessl
        return prove_network(found.backbone, normalization, written, facts, target)
    if target == "detectron2":
        held = weights.read_weights(path)
        return prove(
            found.backbone, normalization, held["model"], held["densessl"], found.fpn, stride
        )
    held = reading.read_checkpoint(path)
    if found.is_vit:
        library = "torchvision" if target == "torchvision" else "timm"
        return prove_vit(found.backbone, normalization, dict(held), held.densessl, library)
    if target == "timm" or not compat.is_installed("detectron2"):  # another's ResNet of these names
        return prove_timm(found.backbone, normalization, dict(held), held.densessl, stride)
    names = keys.detectron2_names(found.depth)
    renamed = {names.get(name, name): tensor for name, tensor in held.items()}
    return prove(found.backbone, normalization, renamed, held.densessl, None, stride)
