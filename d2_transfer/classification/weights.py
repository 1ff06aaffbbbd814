"""What a trial starts from: any checkpoint that ``densessl convert`` knows, or a random start."""

import os
from collections.abc import Callable
from pathlib import Path

from fvcore.common.config import CfgNode

from densessl.core import files
from densessl.core.errors import InputError
from densessl.core.text import read_mapping
from densessl.weight_files import timm_networks
from densessl.weight_files.timm_networks import is_timm

from .. import channels, convert
from ..run import Run
from ..weights import (
    RANDOM,
    RANDOM_BN,
    SUPERVISED,
    Weights,
    converted_name,
    log_images,
    refuse_random_bn,
)
from .networks import check_size, is_vit, network_of, stages_of

Check = Callable[[CfgNode, dict | None], None]


def prepare(
    named: str, folder: str | os.PathLike, cfg: CfgNode, check: Check | None = None
) -> Weights:
    """Turn what the user named into a weights file, converting it (with the proof).

    The file is ``folder/weights_<hash>.pth``, with torchvision's names of a ResNet, timm's of ViTs.
    ``named``: ``random``; ``random_bn`` (:mod:`.controls`); ``supervised:FILE``, a state dict of
    torchvision or timm; or any checkpoint that ``densessl convert`` knows. ``check(cfg, facts)``
    raises for weights that do not suit the config: :func:`_check` unless named. Raises InputError
    for what cannot be understood and for a config that does not suit the weights.
    """
    check = check or _check
    if named in (RANDOM, RANDOM_BN):
        check(cfg, None)
        channels.settle(cfg, {})
        if named == RANDOM:
            return Weights("", RANDOM, "", RANDOM)
        check_control(cfg)
        return Weights(RANDOM_BN, RANDOM_BN, "", RANDOM_BN)
    supervised = named.startswith(f"{SUPERVISED}:")
    source = Path(named.removeprefix(f"{SUPERVISED}:") if supervised else named)
    if not source.is_file():
        raise InputError(
            f"the weights '{source}' are not a file; allowed: a checkpoint, '{RANDOM}', "
            f"'{RANDOM_BN}' or "
            f"'{SUPERVISED}:FILE' with a state dict of torchvision or timm"
        )
    sha256 = files.sha256(source)
    out = Path(folder) / converted_name(cfg, sha256, ".pth")
    held_already = _source_of(out) == sha256
    if not held_already:
        method = SUPERVISED if supervised else None
        wanted = cfg.INPUT.CHANNELS or None
        report = convert.convert(source, out, force=True, method=method, channels=wanted)
        files.write_text(out.with_suffix(".txt"), f"{report}\n")
    facts = convert.read_checkpoint(out).densessl
    log_images(facts)
    try:
        check(channels.settle(cfg, channels.stated(facts)), facts)
    except InputError:
        if not held_already:
            for file in (out, out.with_suffix(".txt")):
                file.unlink()
        raise
    return Weights(
        str(out.absolute()),
        str(source.absolute()),
        sha256,
        facts["method"],
        facts.get("pretrain") or {},
        images=channels.stated(facts),
    )


def ready(cfg: CfgNode, run: Run, evaluates: bool) -> CfgNode:
    """The config; of a trained model with the start that it was trained from."""
    return with_start_of(cfg, run.weights.file) if evaluates else cfg


def with_start_of(cfg: CfgNode, model: str | os.PathLike) -> CfgNode:
    """``cfg`` with the start that a trial's ``model_final.pth`` was trained from.

    The start tells the network, and how its images are normalised. It is read from the trial's
    config, and may have moved with the trial's folders. Raises InputError where it is not there.
    """
    config = Path(model).with_name("config.yaml")
    try:
        start = str(read_mapping(config, "the config of a trial")["MODEL"]["WEIGHTS"])
    except (InputError, KeyError, TypeError):
        raise InputError(
            f"{model} has no readable config.yaml of a trial beside it, which tells its network; "
            "name the model in the folder of its trial"
        ) from None
    is_file = start not in ("", RANDOM_BN)
    if is_file and not Path(start).is_file():
        moved = config.parents[1] / Path(start).name
        if not moved.is_file():
            raise InputError(
                f"{config} names the weights {start}, which tell the model's network; they are "
                f"not there, nor is {moved}"
            )
        start = str(moved)
    settled = cfg.clone()
    settled.defrost()
    settled.MODEL.WEIGHTS = start
    settled.freeze()
    _check(settled, convert.read_checkpoint(start).densessl if is_file else None)
    return settled


def _source_of(out: Path) -> str | None:
    """The sum of the checkpoint that an earlier conversion read; None where there is none."""
    if not out.is_file():
        return None
    try:
        return convert.read_checkpoint(out).densessl["source_sha256"]
    except (InputError, AttributeError, KeyError):
        return None


def check_control(cfg: CfgNode) -> None:
    """InputError where there is no batch norm that stays as it is."""
    name = network_of(cfg.MODEL.BACKBONE, None)
    if is_vit(name) or (is_timm(name) and not timm_networks.has_batch_norm(name)):
        raise refuse_random_bn(f"a {name} has no batch norm")
    if cfg.TASK == "finetune":
        raise refuse_random_bn("fine-tuning settles batch norm by itself")


def _check(cfg: CfgNode, facts: dict | None) -> None:
    name = network_of(cfg.MODEL.BACKBONE, facts)
    check_size(name, cfg.INPUT.SIZE)
    if cfg.TASK == "knn":
        stages_of(name, cfg.KNN.STAGES, "KNN.STAGES")
