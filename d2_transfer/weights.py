"""What a trial starts from: a random start, supervised weights, ours, or a converted file."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densessl.core import files
from densessl.core.errors import InputError
from densessl.weight_files import images
from densessl.weight_files.channels import COLOURS
from densessl.weight_files.timm_networks import IN_DETECTOR

from . import channels, convert
from .backbone_choice import follow
from .protocols import PROTOCOLS

logger = logging.getLogger("densessl")
RANDOM = "random"
RANDOM_BN = "random_bn"  # with the data's own batch-norm statistics: a control of frozen protocols
SUPERVISED = "supervised"


def refuse_random_bn(why: str) -> InputError:
    """The error of a protocol that has no use for that control."""
    frozen = ", ".join(name for name, each in PROTOCOLS.items() if each.frozen)
    return InputError(
        f"the weights are '{RANDOM_BN}', a control of protocols that freeze the network "
        f"({frozen}); {why}: take '{RANDOM}'"
    )


@dataclass(frozen=True)
class Weights:
    """A Detectron2 weights file and where it comes from.

    ``file`` is what Detectron2 loads (empty for a random start; of RANDOM_BN that word, which is no
    file), ``path`` what the user named and
    ``sha256`` the sum of that. ``method`` and ``pretrain`` go into the records; ``pretrain`` has
    the ``range`` of a pretraining on images that are not of 8 bits. ``network``: resnet50,
    timm/convnext_tiny; empty where it is not known. ``images``: what the file says of images of
    other than three channels (``channels.stated``); empty of three.
    """

    file: str
    path: str
    sha256: str
    method: str
    pretrain: dict[str, Any] = field(default_factory=dict)
    network: str = ""
    images: dict[str, Any] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range that became black and white in the pretraining, where the file tells one."""
        held = self.pretrain.get("range")
        return (float(held[0]), float(held[1])) if held else None


def prepare(named: str, folder: str | os.PathLike, cfg) -> Weights:
    """Turn what the user named into a weights file that suits ``cfg``, converting when needed.

    ``named``: ``random``; ``supervised:FILE``, a torchvision state dict; a converted ``.pkl``; or
    any checkpoint that ``densessl convert`` knows, which is converted (with its proof) to
    ``folder/weights_<hash>.pkl``. Raises InputError for what cannot be understood and for a config
    that does not suit the weights.
    """
    if named == RANDOM:
        if cfg.MODEL.FPN.TRANSFER:
            raise InputError("MODEL.FPN.TRANSFER is True, but a random start has no FPN")
        channels.settle(cfg, {})
        return Weights("", RANDOM, "", RANDOM)
    if named == RANDOM_BN:
        raise refuse_random_bn("Detectron2's protocols settle batch norm by themselves")
    supervised = named.startswith(f"{SUPERVISED}:")
    path = named.rpartition(f"{SUPERVISED}:")[2]
    if supervised and not path:
        raise InputError(f"'{named}' names no file; write {SUPERVISED}:FILE, a torchvision .pth")
    source = Path(path if supervised else named)
    if not source.is_file():
        raise InputError(
            f"the weights '{source}' are not a file; allowed: a checkpoint, a converted .pkl, "
            f"'{RANDOM}' or '{SUPERVISED}:FILE'"
        )
    sha256 = files.sha256(source)
    held = convert.read_checkpoint(source) if source.suffix == ".pkl" and not supervised else None
    if isinstance(held, dict) and held.get("densessl") and fits(cfg, held["densessl"]):
        file, held = source, convert.read_weights(source)
    else:
        file = Path(folder) / converted_name(cfg, sha256, ".pkl")
        held = _converted_before(file, sha256)
    made = held is None
    if held is None:
        method = SUPERVISED if supervised else None
        wanted = cfg.INPUT.CHANNELS or None
        report = convert.convert(source, file, force=True, method=method, channels=wanted)
        for note in report.notes:
            logger.info("%s: %s", source, note)
        files.write_text(file.with_suffix(".txt"), f"{report}\n")
        held = convert.read_weights(file)
    if held.get("densessl"):
        log_images(held["densessl"])
    try:
        network = (held.get("densessl") or {}).get("network", "")
        images_of = channels.stated(held.get("densessl"))
        convert.check_detector_config(held, follow(channels.settle(cfg, images_of), network))
    except InputError:
        for each in (file, file.with_suffix(".txt")) if made else ():
            each.unlink()
        raise
    facts = held["densessl"]
    return Weights(
        str(file.absolute()),
        str(source.absolute()),
        sha256,
        facts["method"],
        facts.get("pretrain") or {},
        facts.get("network", ""),
        channels.stated(facts),
    )


def converted_name(cfg, sha256: str, suffix: str) -> str:
    """What the weights of a run's folder are called: never as those of another run."""
    of_channels = f"_{cfg.INPUT.CHANNELS}ch" if cfg.INPUT.CHANNELS else ""
    return f"weights_{sha256[:12]}{of_channels}{suffix}"


def fits(cfg, facts: dict[str, Any]) -> bool:
    """Whether a converted file takes images of as many channels as INPUT.CHANNELS says."""
    return cfg.INPUT.CHANNELS in (0, facts.get("channels", COLOURS))


def log_images(facts: dict[str, Any]) -> None:
    """Say which images the weights take, so that nothing is assumed without a word."""
    logger.info("the weights (%s) take images %s", facts["method"], images.words_of(facts))


def _converted_before(out: Path, sha256: str) -> dict[str, Any] | None:
    """What an earlier conversion of the same checkpoint wrote; None where there is none."""
    if not out.is_file():
        return None
    held = convert.read_weights(out)
    return held if (held.get("densessl") or {}).get("source_sha256") == sha256 else None


def check_loaded(model, weights_file: str, transfer_fpn: bool = False) -> int:
    """Make sure that every backbone tensor of ``model`` (res5 in the head too) is the file's.

    With ``transfer_fpn`` also all of the file's FPN that the model has a place for: a detector
    whose FPN is normalised has none for the convolutions' biases, which the norm would cancel.
    Returns how many tensors. Detectron2 itself only warns when nothing matches, and trains from a
    random start. Raises InputError with the names.
    """
    import torch

    held = convert.read_weights(weights_file)["model"]
    state = model.state_dict()
    expected = {key: name for key in state if (name := backbone_name(key))}
    if transfer_fpn:
        pyramid = {key: key for key in state if fpn_name(key) and key in held}
        if not pyramid:
            raise InputError(
                f"MODEL.FPN.TRANSFER is True, but {weights_file} holds no FPN that the detector "
                "has; allowed: weights pretrained with one (ReSim-FPN), or False"
            )
        expected |= pyramid
    wrong = [
        f"{key} ({'not in the file' if name not in held else 'not what the file holds'})"
        for key, name in expected.items()
        if name not in held
        or tuple(held[name].shape) != tuple(state[key].shape)
        or not torch.equal(state[key].cpu(), torch.as_tensor(held[name]).to(state[key].dtype))
    ]
    if wrong or not expected:
        some = "; ".join(wrong[:6]) + ("; …" if len(wrong) > 6 else "")
        raise InputError(
            f"{weights_file} did not fill the detector's backbone: {len(wrong)} of "
            f"{len(expected)} tensors differ: {some}"
        )
    return len(expected)


def backbone_name(key: str) -> str | None:
    """The weights file's name for a tensor of a detector, None for one that starts fresh.

    ``backbone.res4.0.conv1.weight``, ``backbone.bottom_up.res4…`` (FPN) and
    ``roi_heads.res5.0…`` (C4) are the backbone's, and so is ``timm_network…`` in their place; the
    pyramid's own convolutions, the extra norm after res5 and all the heads start fresh.
    """
    for prefix in ("backbone.bottom_up.", "backbone.", "roi_heads."):
        if key.startswith(prefix):
            name = key[len(prefix) :]
            stage, _, rest = name.partition(".")
            if name.startswith(IN_DETECTOR):
                return name
            if stage == "stem" or (stage.startswith("res") and rest[:1].isdigit()):
                return name
            return None
    return None


def fpn_name(key: str) -> str | None:
    """``key`` itself if it is a tensor of an FPN's own convolutions or norms, else None."""
    return key if key.startswith(("backbone.fpn_lateral", "backbone.fpn_output")) else None
