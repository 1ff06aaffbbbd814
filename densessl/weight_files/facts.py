"""What a checkpoint tells about itself beside its tensors, whoever wrote it."""

import re
from typing import Any

from .layouts import KeyLayout
from .origin import config_text
from .timm_networks import is_timm

OPENMMLAB = {"BarlowTwins": "barlow_twins", "MoCo": "moco_v2", "MoCoV3": "moco_v3"}
PROGRESS = ("epoch", "epochs", "iter", "iteration", "global_step", "step", "phase_idx")


def ours(checkpoint: Any) -> dict[str, Any]:
    """The facts that a conversion of ours wrote; empty for files of others."""
    facts = getattr(checkpoint, "densessl", None) or checkpoint.get("densessl")
    whole = isinstance(facts, dict) and {"normalization", "channel_order"} <= facts.keys()
    return facts if whole else {}


def is_ours(checkpoint: dict) -> bool:
    """Whether our pretraining or conversion wrote the file, which then knows its network."""
    return isinstance(checkpoint.get("normalization"), dict) or bool(ours(checkpoint))


def own_backbone(checkpoint: Any) -> str:
    """``path/to/file.py:Name`` of the network in a run of ours that is the user's own, else ''."""
    config = checkpoint.get("config") if isinstance(checkpoint, dict) else None
    found = re.search(r"^BACKBONE:\n(?: .*\n)*? +NAME: (\S+\.py:\w+)$", str(config), re.MULTILINE)
    return found[1] if found else ""


def timm_network(checkpoint: Any) -> str:
    """``timm/NAME`` of the network in a file of ours that is one of timm's, else ''."""
    if not isinstance(checkpoint, dict):
        return ""
    network = str(ours(checkpoint).get("network", ""))
    config = checkpoint.get("config")
    found = re.search(r"^BACKBONE:\n(?: .*\n)*? +NAME: (timm/\w+)$", str(config), re.MULTILINE)
    return found[1] if found else network if is_timm(network) else ""


def method(checkpoint: dict, facts: dict[str, Any], layout: KeyLayout) -> str:
    """The method's name: the file's own word, else its layout's, else 'unknown'."""
    stated = checkpoint.get("method")
    stated = stated if isinstance(stated, str) else facts.get("method") or layout.method
    return stated or _method_of_openmmlab(checkpoint) or "unknown"


def pretrain(checkpoint: dict, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of our own pretraining; ``epochs`` are those done when the file was written."""
    stated = checkpoint.get("pretrain")
    stated = dict(stated) if isinstance(stated, dict) else {}
    done, steps = checkpoint.get("iteration"), stated.get("steps")
    if done is not None and steps and "epochs" in stated and done < steps:
        stated |= {"epochs": round(stated["epochs"] * done / steps, 4), "steps": done}
    return stated or facts.get("pretrain") or {}


def progress(checkpoint: dict) -> dict[str, Any]:
    """How far the training was, in the file's own words: ``{"epoch": 200}``."""
    meta = checkpoint.get("meta")
    holders = [checkpoint, meta if isinstance(meta, dict) else {}]
    found = {}
    for holder in holders:
        for name in PROGRESS:
            if isinstance(holder.get(name), int | float) and name not in found:
                found[name] = holder[name]
    return found


def _method_of_openmmlab(checkpoint: dict) -> str | None:
    """The method by the config that mmcv and mmengine put into ``meta`` as text."""
    found = re.search(r"\bmodel\s*=\s*dict\(\s*type='(\w+)'", config_text(checkpoint))
    return OPENMMLAB.get(found[1], found[1].lower()) if found else None
