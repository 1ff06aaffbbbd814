"""The proof for ResNets that go to timm: timm's network with the file's tensors, torchvision's own.

Two implementations of one network: see ``prove``.
"""

import importlib
from collections.abc import Callable
from typing import Any

from densessl.core.errors import EnvironmentLacks

from .prove import (
    INPUT,
    LAYERS,
    SEED,
    STAGES,
    ProofFailed,
    Stage,
    compare,
    normalised,
    normalised_by_detectron2,
    settled,
    stride_as_caffe,
    tensors_that_differ,
    torchvision_stages,
)


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
    image = torch.randint(0, 256, INPUT, generator=torch.Generator().manual_seed(SEED))
    expected, got = normalised(image, normalization), normalised_by_detectron2(image, facts)
    with torch.no_grad():
        ours = torchvision_stages(reference, facts["depth"], expected, stride_in_1x1)
        theirs = _timms_stages(written, facts, expected)
    stages = [compare("input", expected, got)]
    stages += [compare(name, ours[name], theirs[name]) for name in STAGES]
    return settled(stages, wrong)


def timms(name: str) -> Callable[..., Any]:
    """``timm.models.NAME``; EnvironmentLacks where timm is not installed."""
    module, builder = name.split(".")
    try:
        models = importlib.import_module(f"timm.models.{module}")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise EnvironmentLacks(
            "timm is not installed, and the proof runs its network; mend it with: "
            "pip install 'timm>=1.0'"
        ) from None
    return getattr(models, builder)


def _timms_stages(state: dict[str, Any], facts: dict[str, Any], image) -> dict[str, Any]:
    import torch

    build = timms(f"resnet.{facts['network']}")
    with torch.device("meta"):  # no time for initial weights
        network = build(num_classes=0)
    try:
        network.load_state_dict(state, assign=True)  # strict
    except RuntimeError as error:
        raise ProofFailed(f"timm's ResNet does not take the tensors: {error}") from None
    if facts["stride_in_1x1"]:
        stride_as_caffe(network)
    network.eval()
    x = network.maxpool(network.act1(network.bn1(network.conv1(image))))
    outputs = {"stem": x}
    for name, layer in zip(STAGES[1:], LAYERS, strict=True):
        x = outputs[name] = getattr(network, layer)(x)
    return outputs
