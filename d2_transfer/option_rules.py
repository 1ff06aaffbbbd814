"""What the values of plain configs may be: choices, numbers, devices; Detectron2 has none of it."""

import math
from collections.abc import Callable, Mapping, Sequence

from fvcore.common.config import CfgNode

from densessl.core.errors import InputError, unknown
from densessl.core.overrides import pairs

Rules = dict[str, tuple[Callable[[float], bool], str]]  # option: what holds, in words


def add(rules: Rules, words: str, holds: Callable[[float], bool], *options: str) -> None:
    """One rule for several options."""
    rules.update(dict.fromkeys(options, (holds, words)))


def check_values(cfg: CfgNode, choices: Mapping[str, Sequence], rules: Rules) -> None:
    """InputError for the first value that is none of its choices, or breaks its rule."""
    for name, allowed in choices.items():
        if value_of(cfg, name) not in allowed:
            raise unknown("value", value_of(cfg, name), allowed, name)
    for name, (holds, words) in rules.items():
        value = value_of(cfg, name)
        for each in value if isinstance(value, tuple | list) else (value,):
            numeric = isinstance(each, int | float) and not isinstance(each, bool)
            if not numeric or not math.isfinite(each) or not holds(each):
                raise InputError(f"{name} is {value}; allowed: {words}")


def check_device(cfg: CfgNode, cuda: bool) -> None:
    """InputError for a device that is not here, and for AMP without CUDA."""
    device = cfg.MODEL.DEVICE
    if device not in ("cpu", "cuda") or (device == "cuda" and not cuda):
        here = "cpu, cuda" if cuda else "cpu: there is no CUDA device here"
        raise InputError(f"MODEL.DEVICE is '{device}'; allowed: {here}")
    if device == "cpu" and cfg.SOLVER.AMP.ENABLED:
        raise InputError("SOLVER.AMP.ENABLED is True, but AMP needs a CUDA device")


def value_of(cfg: CfgNode, name: str):
    """The value under a dotted name."""
    for part in name.split("."):
        cfg = cfg[part]
    return cfg


def with_decimals(cfg: CfgNode, overrides: Sequence[str]) -> list[str]:
    """A whole number given for an option that is none (EPOCHS 20): the config is strict there."""
    words = pairs(overrides)
    for place in range(0, len(words), 2):
        node = cfg
        for part in words[place].split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, float) and words[place + 1].lstrip("-").isdigit():
            words[place + 1] += ".0"
    return words
