"""What a checkpoint tells about itself beside its tensors, whoever wrote it."""

import re
from typing import Any

from console.errors import InputError

from .layouts import Layout

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "RGB"}
# Detectron2's own model zoo: Caffe's images and, in most of it, MSRA's networks.
MODEL_ZOO = "Detectron2 Model Zoo"
CAFFE = {
    "mean": [value / 255 for value in (103.53, 116.28, 123.675)],
    "std": [1 / 255] * 3,
    "channel_order": "BGR",
}
ZOO_NOTE = (
    "by Detectron2's model zoo: taken are its defaults, BGR images and the stride in the 1x1 "
    "convolution of layer2 to layer4's first block (torchvision: in the 3x3)"
)
DETECTOR_NOTE = (
    "the file does not say how its images were normalised: taken are RGB and ImageNet's mean and "
    "deviation, and the stride in the 3x3 convolution, as by torchvision"
)
OPENMMLAB = {"BarlowTwins": "barlow_twins", "MoCo": "moco_v2", "MoCoV3": "moco_v3"}
PROGRESS = ("epoch", "epochs", "iter", "iteration", "global_step", "step", "phase_idx")


def ours(checkpoint: Any) -> dict[str, Any]:
    """The facts that a conversion of ours wrote; empty for files of others."""
    facts = getattr(checkpoint, "densessl", None) or checkpoint.get("densessl")
    whole = isinstance(facts, dict) and {"normalization", "channel_order"} <= facts.keys()
    return facts if whole else {}


def method(checkpoint: dict, facts: dict[str, Any], layout: Layout) -> str:
    """The method's name: the file's own word, else its layout's, else 'unknown'."""
    told = checkpoint.get("method")
    told = told if isinstance(told, str) else facts.get("method") or layout.method
    return told or _method_of_openmmlab(checkpoint) or "unknown"


def images(
    checkpoint: dict, facts: dict[str, Any], layout: Layout, notes: list[str]
) -> tuple[dict[str, Any], bool]:
    """How images are normalised, and whether the network has its stride in the 1x1 convolution.

    ``notes`` gets a line where both had to be assumed.
    """
    if isinstance(checkpoint.get("normalization"), dict):
        return _checked(IMAGENET | checkpoint["normalization"]), False
    if facts:
        scaled = {name[6:]: [v / 255 for v in vs] for name, vs in facts["normalization"].items()}
        order = {"channel_order": facts["channel_order"]}
        return _checked(IMAGENET | scaled | order), bool(facts.get("stride_in_1x1"))
    if checkpoint.get("__author__") == MODEL_ZOO:
        notes.append(ZOO_NOTE)
        return dict(CAFFE), True
    if layout.names == "detector":
        notes.append(DETECTOR_NOTE)
    return dict(IMAGENET), False


def _checked(normalization: dict[str, Any]) -> dict[str, Any]:
    for name in ("mean", "std"):
        values = normalization[name]
        listed = values if isinstance(values, list | tuple) else ()
        if len(listed) != 3 or not all(isinstance(value, int | float) for value in listed):
            raise InputError(f"the checkpoint's normalization: {name} is {values}, not 3 numbers")
    order = normalization["channel_order"]
    if order not in ("RGB", "BGR"):
        raise InputError(f"the checkpoint's channel order is {order}; known: RGB, BGR")
    return normalization


def pretrain(checkpoint: dict, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of our own pretraining; ``epochs`` are those done when the file was written."""
    told = checkpoint.get("pretrain")
    told = dict(told) if isinstance(told, dict) else {}
    done, steps = checkpoint.get("iteration"), told.get("steps")
    if done is not None and steps and "epochs" in told and done < steps:
        told |= {"epochs": round(told["epochs"] * done / steps, 4), "steps": done}
    return told or facts.get("pretrain") or {}


def progress(checkpoint: dict) -> dict[str, Any]:
    """How far the training was, in the file's own words: ``{"epoch": 200}``."""
    meta = checkpoint.get("meta")
    places = [checkpoint, meta if isinstance(meta, dict) else {}]
    found = {}
    for place in places:
        for name in PROGRESS:
            if isinstance(place.get(name), int | float) and name not in found:
                found[name] = place[name]
    return found


def _method_of_openmmlab(checkpoint: dict) -> str | None:
    """The method by the config that mmcv and mmengine put into ``meta`` as text."""
    meta = checkpoint.get("meta")
    text = (meta.get("config") or meta.get("cfg")) if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return None
    found = re.search(r"\bmodel\s*=\s*dict\(\s*type='(\w+)'", text)
    return OPENMMLAB.get(found[1], found[1].lower()) if found else None
