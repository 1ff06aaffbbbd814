"""The weights files that conversions write, and whether a detector's config suits them."""

import collections
import hashlib
import json
import os
import pickle
import shlex
from pathlib import Path
from typing import Any, BinaryIO

from densessl.core.errors import InputError
from densessl.weight_files.reading import read_checkpoint
from densessl.weight_files.timm_networks import is_timm

AUTHOR = "DenseSSL"


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
    """A Detectron2 weights file: ``model`` (name -> array), ``__author__``, and our ``densessl``.

    Raises InputError for any other layout: those go through ``densessl convert`` first.
    """
    held = read_checkpoint(path)
    if not isinstance(held, dict) or "model" not in held or "__author__" not in held:
        command = ["densessl", "convert", str(path), "-o", Path(path).with_suffix(".pkl").name]
        raise InputError(
            f"{path} is no Detectron2 weights file (it lacks 'model' and '__author__'); first "
            f"run: {shlex.join(command)}"
        )
    model, facts = held["model"], held.get("densessl")
    arrays = isinstance(model, dict) and all(hasattr(a, "tobytes") for a in model.values())
    if not arrays or not isinstance(facts, dict | None):
        raise InputError(f"{path}: 'model' is not a dict of arrays, or 'densessl' not one of facts")
    if facts is not None and facts.get("tensors_sha256") != digest(model):
        raise InputError(f"{path} is damaged: its tensors are not those that were written")
    return held


def digest(model: dict[str, Any]) -> str:
    """The SHA-256 over names, types, shapes and values of arrays, in their order."""
    sha = hashlib.sha256()
    for name, array in model.items():
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def write_detectron2(stream: BinaryIO, model: dict[str, Any], facts: dict[str, Any]) -> None:
    """Pickle arrays and facts as Detectron2 reads them; the same input gives the same bytes."""
    facts = facts | {"tensors_sha256": digest(model)}
    held = {
        "model": model,
        "__author__": AUTHOR,
        "matching_heuristics": True,  # names are matched by their longest dotted tail
        "densessl": json.loads(json.dumps(facts, sort_keys=True)),  # plain values only
    }
    pickle.dump(held, stream, protocol=4)


def write_state_dict(stream: BinaryIO, state: dict[str, Any], facts: dict[str, Any]) -> None:
    """Save a state dict that torchvision or timm loads as it is.

    The facts are its attribute ``densessl``, because every key of it is taken for a tensor.
    """
    import torch

    held: Any = collections.OrderedDict(state)
    held.densessl = json.loads(json.dumps(facts, sort_keys=True))
    torch.save(held, stream)


def check_detector_config(weights: dict[str, Any], cfg) -> None:
    """Refuse a Detectron2 config that feeds or builds the backbone in another way than the weights.

    ``weights``: of ``read_weights``. Compares INPUT.FORMAT, PIXEL_MEAN and PIXEL_STD, the depth,
    STRIDE_IN_1X1 and the widths of a plain ResNet. Raises InputError naming every disagreeing key
    with both values, and weights whose facts are not known.
    """
    facts = weights.get("densessl")
    if facts is None:
        raise InputError(
            f"the weights (by '{weights.get('__author__')}') do not say how their images were "
            "normalised; convert the original checkpoint with: densessl convert"
        )
    model, resnets = cfg.MODEL, cfg.MODEL.RESNETS
    compared: list[tuple[str, Any, Any]] = []
    c4 = model.META_ARCHITECTURE == "GeneralizedRCNN" and model.ROI_HEADS.NAME.startswith("Res5")
    if is_timm(facts.get("network", "")):
        compared.append(("MODEL.BACKBONE.TIMM", model.BACKBONE.TIMM, facts["network"]))
        c4 = False
    else:
        compared += _of_resnet(resnets, facts)
    wrong = images_that_differ(cfg, facts) + _that_differ(compared)
    if c4 and facts["depth"] < 50:
        wrong.append(
            f"MODEL.ROI_HEADS.NAME is {model.ROI_HEADS.NAME}, whose res5 is three bottleneck "
            f"blocks: a ResNet-{facts['depth']} cannot fill it; use an FPN protocol"
        )
    if wrong:
        raise InputError("the detector's config and the weights disagree: " + "; ".join(wrong))


def images_that_differ(cfg, facts: dict[str, Any]) -> list[str]:
    """What a Detectron2 config does to images and the weights, by their facts, do not want."""
    normal, model = facts["normalization"], cfg.MODEL
    return _that_differ(
        [
            ("INPUT.FORMAT", cfg.INPUT.FORMAT, facts["channel_order"]),
            ("MODEL.PIXEL_MEAN", list(model.PIXEL_MEAN), normal["pixel_mean"]),
            ("MODEL.PIXEL_STD", list(model.PIXEL_STD), normal["pixel_std"]),
        ]
    )


def _that_differ(compared: list[tuple[str, Any, Any]]) -> list[str]:
    return [
        f"{key} is {value}, the weights need {needed}"
        for key, value, needed in compared
        if not _same(value, needed)
    ]


def _of_resnet(resnets, facts: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, value and what the weights need, of the options that build a ResNet."""
    needed = resnet_options(facts)
    if facts["depth"] < 50:  # basic blocks have no 1x1 convolution
        del needed["STRIDE_IN_1X1"]
    return [(f"MODEL.RESNETS.{key}", resnets[key], value) for key, value in needed.items()]


def resnet_options(facts: dict[str, Any]) -> dict[str, Any]:
    """What MODEL.RESNETS must say of a written file's ResNet, by its facts."""
    return {
        "DEPTH": facts["depth"],
        "STEM_OUT_CHANNELS": 64,
        "RES2_OUT_CHANNELS": 256 if facts["depth"] >= 50 else 64,
        "NUM_GROUPS": facts.get("num_groups", 1),
        "WIDTH_PER_GROUP": facts.get("width_per_group", 64),
        "STRIDE_IN_1X1": facts["stride_in_1x1"],
    }


def options_beside_resnet50(facts: dict[str, Any]) -> dict[str, Any]:
    """What must be said of a written file's ResNet to a protocol, which has a ResNet-50."""
    if facts.get("depth") is None:
        return {}
    usual = resnet_options({"depth": 50, "stride_in_1x1": False})
    return {key: needed for key, value, needed in _of_resnet(usual, facts) if value != needed}


def _same(value: Any, needed: Any) -> bool:
    if isinstance(needed, list):
        near = [abs(a - b) < 1e-3 for a, b in zip(value, needed, strict=False)]
        return len(value) == len(needed) and all(near)
    return value == needed
