"""The proof for vision transformers: timm's network and torchvision's give the same.

The file's own tensors run in the library that the file is for; against it stands the other
library's network with the source's tensors. Two implementations, so that a file is never compared
with itself.
"""

from typing import Any

from densessl.weight_files import vit

from .prove import (
    SEED,
    ProofFailed,
    Stage,
    compare,
    normalised,
    normalised_by_detectron2,
    settled,
    tensors_that_differ,
)
from .prove_timm import timms

STAGES = ("tokens", "block4", "block8", "block12", "cls")  # tokens: positions are in


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
    shape = (1, 3, vit.IMAGE, vit.IMAGE)
    image = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(SEED))
    expected, got = normalised(image, normalization), normalised_by_detectron2(image, facts)
    with torch.no_grad():
        if target == "timm":
            ours = _torchvisions_stages(renamed, network, expected)
            theirs = _timms_stages(written, network, expected)
        else:
            ours = _timms_stages(reference, network, expected)
            theirs = _torchvisions_stages(written, network, expected)
    stages = [compare("input", expected, got)]
    stages += [compare(name, ours[name], theirs[name]) for name in STAGES]
    return settled(stages, wrong)


def _timms_stages(state: dict[str, Any], network: str, image) -> dict[str, Any]:
    import torch

    build = timms(f"vision_transformer.{vit.SIZES[network].timm}")
    with torch.device("meta"):  # no time for initial weights
        model = build(num_classes=0)
    _load(model, state, "timm's")
    return _stages(model, model.pos_drop, model.blocks, image)


def _torchvisions_stages(state: dict[str, Any], network: str, image) -> dict[str, Any]:
    import torch
    from torchvision.models import VisionTransformer

    with torch.device("meta"):
        model = VisionTransformer(**vit.SIZES[network].torchvision)
    model.heads = torch.nn.Identity()
    _load(model, state, "torchvision's")
    return _stages(model, model.encoder.dropout, model.encoder.layers, image)


def _load(model, state: dict[str, Any], whose: str) -> None:
    try:
        model.load_state_dict(state, assign=True)  # strict
    except RuntimeError as error:
        raise ProofFailed(f"{whose} ViT does not take the tensors: {error}") from None


def _stages(model, embedded, blocks, image) -> dict[str, Any]:
    """The outputs of these modules in one pass, and the model's own: the class token."""
    outputs = {}
    modules = (embedded, blocks[3], blocks[7], blocks[11])
    for name, module in zip(STAGES, modules, strict=False):
        module.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
    outputs["cls"] = model.eval()(image)
    return outputs
