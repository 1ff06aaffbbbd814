"""The proofs that run timm's networks: of ResNets that go to timm, and of vision transformers.

The file's own tensors run in the library that the file is for; against it stands torchvision's (for
a ViT that goes to torchvision: timm's) network with the source's tensors. Two implementations, so
that a file is never compared with itself: see ``prove``.
"""

import importlib
from collections.abc import Callable
from typing import Any

from densessl.core.errors import EnvironmentLacks
from densessl.weight_files import timm_networks, vit

from .prove import (
    SIDES,
    Stage,
    any_image,
    channels_of,
    compared,
    load,
    network_of,
    normalised,
    normalised_by_detectron2,
    of_channels,
    resnet_stages,
    tensors_that_differ,
    torchvision_stages,
)

VIT_STAGES = ("tokens", "block4", "block8", "block12", "cls")  # tokens: positions are in


def prove_timm(
    reference: dict[str, Any],
    normalization: dict[str, Any],
    written: dict[str, Any],
    facts: dict[str, Any],
    stride_in_1x1: bool = False,
) -> list[Stage]:
    """Run both networks in float32 evaluation mode and compare every stage.

    ``reference``: torchvision names -> tensors, with ``normalization`` and ``stride_in_1x1`` as in
    ``prove``; ``written``: timm's names -> tensors of the written file, with its ``facts``. Raises
    ProofFailed naming what differs; EnvironmentLacks where timm is not installed.
    """
    import torch

    wrong = tensors_that_differ(reference, written)
    image = any_image(SIDES, channels_of(facts))
    expected, got = normalised(image, normalization), normalised_by_detectron2(image, facts)
    with torch.no_grad():
        ours = torchvision_stages(reference, network_of(facts), expected, stride_in_1x1)
        theirs = _timms_stages(written, facts, expected)
    return compared({"input": expected, **ours}, {"input": got, **theirs}, wrong)


def timms(name: str) -> Callable[..., Any]:
    """``timm.models.NAME``; EnvironmentLacks where timm is not installed."""
    module, builder = name.split(".")
    try:
        models = importlib.import_module(f"timm.models.{module}")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise EnvironmentLacks(
            "timm is not installed, and the proof runs its network; fix it with: "
            "pip install 'timm>=1.0'"
        ) from None
    return getattr(models, builder)


def _timms_stages(state: dict[str, Any], facts: dict[str, Any], image) -> dict[str, Any]:
    import torch

    build = timms(f"resnet.{facts['network']}")
    with torch.device("meta"):  # no time for initial weights
        network = build(num_classes=0, in_chans=channels_of(facts))
    load(network, state, "timm's ResNet")
    return resnet_stages(network, network.act1, image, facts["stride_in_1x1"])


def prove_vit(
    reference: dict[str, Any],
    normalization: dict[str, Any],
    written: dict[str, Any],
    facts: dict[str, Any],
    target: str,
) -> list[Stage]:
    """Run both networks in float32 evaluation mode at 224 px and compare every stage.

    ``reference``: timm names -> tensors, with ``normalization`` as in ``prove``; ``written``: the
    names of ``target`` ("timm" or "torchvision") -> tensors of the written file, with its
    ``facts``. Raises ProofFailed naming what differs; EnvironmentLacks where timm is not installed.
    """
    import torch

    network = facts["network"]
    names = vit.torchvision_names(network)
    renamed = {names[name]: tensor for name, tensor in reference.items()}
    wrong = tensors_that_differ(reference if target == "timm" else renamed, written)
    image = any_image((vit.IMAGE, vit.IMAGE), channels_of(facts))
    expected, got = normalised(image, normalization), normalised_by_detectron2(image, facts)
    with torch.no_grad():
        if target == "timm":
            ours = _torchvisions_vit_stages(renamed, network, expected)
            theirs = _timms_vit_stages(written, network, expected)
        else:
            ours = _timms_vit_stages(reference, network, expected)
            theirs = _torchvisions_vit_stages(written, network, expected)
    return compared({"input": expected, **ours}, {"input": got, **theirs}, wrong)


def _timms_vit_stages(state: dict[str, Any], network: str, image) -> dict[str, Any]:
    import torch

    build = timms(f"vision_transformer.{vit.SIZES[network].timm}")
    with torch.device("meta"):  # no time for initial weights
        model = build(num_classes=0, in_chans=image.shape[1])
    load(model, state, "timm's ViT")
    return _vit_stages(model, model.pos_drop, model.blocks, image)


def _torchvisions_vit_stages(state: dict[str, Any], network: str, image) -> dict[str, Any]:
    import torch
    from torchvision.models import VisionTransformer

    with torch.device("meta"):
        model = VisionTransformer(**vit.SIZES[network].torchvision)
        of_channels(model, image.shape[1])
    model.heads = torch.nn.Identity()
    load(model, state, "torchvision's ViT")
    return _vit_stages(model, model.encoder.dropout, model.encoder.layers, image)


def _vit_stages(model, embedded, blocks, image) -> dict[str, Any]:
    """The outputs of these modules in one pass, and the model's own: the class token."""
    outputs = {}
    modules = (embedded, blocks[3], blocks[7], blocks[11])
    for name, module in zip(VIT_STAGES, modules, strict=False):
        module.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
    outputs["cls"] = model.eval()(image)
    return outputs


def prove_network(
    reference: dict[str, Any],
    normalization: dict[str, Any],
    written: dict[str, Any],
    facts: dict[str, Any],
    target: str,
) -> list[Stage]:
    """Run a network of timm's twice in float32 evaluation mode and compare every level.

    ``reference``: timm's names -> tensors, in timm's own form of the network for features
    (``features_only``); ``written``: those of the file, as the target runs them, under Detectron2's
    names where ``target`` is that. Otherwise as :func:`prove_timm`.
    """
    import torch

    network = facts["network"]
    begins = timm_networks.IN_DETECTOR if target == "detectron2" else ""
    wrong = tensors_that_differ({begins + name: t for name, t in reference.items()}, written)
    tensors = {name: torch.as_tensor(tensor) for name, tensor in written.items()}
    _, *sides = timm_networks.described(network).pretrained_cfg["input_size"]
    image = any_image(sides, channels_of(facts))
    expected, got = normalised(image, normalization), normalised_by_detectron2(image, facts)
    with torch.no_grad():
        ours = timm_networks.features(network, reference, expected)
        levels = _levels(network, tensors, expected, target)
    theirs = {name: levels[name] for name in ours}
    return compared({"input": expected, **ours}, {"input": got, **theirs}, wrong)


def _levels(network: str, tensors: dict[str, Any], image, target: str) -> dict[str, Any]:
    """The levels of a written file's network, in Detectron2 or by itself."""
    if target != "detectron2":
        made = timm_networks.build(network, channels=image.shape[1]).eval()
        load(made, tensors, network)
        return made(image)
    from ..modeling.timm_backbone import TimmBackbone

    backbone = TimmBackbone(network, norm="BN", channels=image.shape[1]).eval()
    load(backbone, tensors, network)
    return {backbone.level_of[name]: each for name, each in backbone(image).items()}
