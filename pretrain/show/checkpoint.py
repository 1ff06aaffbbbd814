"""A backbone from any checkpoint: our own as it is, another's through ``densessl convert``."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densessl.core import archive
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.weight_files.channels import COLOURS
from densessl.weight_files.recognise import first_layer

if TYPE_CHECKING:
    from ..backbones import Backbone

OURS = ("backbone", "config", "normalization")  # keys of a checkpoint of densessl pretrain
ZIP = b"PK\x03\x04"  # how the files of torch.save begin


@dataclass
class Pretrained:
    """A backbone in evaluation mode, where it comes from, its options and normalisation.

    The backbone takes RGB images in [0, 1], less ``mean``, over ``std``; ``bounds`` is the range of
    values that are not of 8 bits in its pretraining. ``iteration`` is 0 where the file does not
    tell; ``cfg`` has the defaults for what was not trained here.
    """

    backbone: "Backbone"
    name: str  # of the file
    network: str
    method: str
    iteration: int
    cfg: Any  # CfgNode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bounds: tuple[float, float] | None = None


def load(path: str) -> Pretrained:
    """The backbone of a checkpoint; InputError for a file that nothing is known to do with.

    A file that ``densessl pretrain`` did not write is converted first, by a process of its own.
    Nothing in a file is run.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint")
    saved = read(path)
    if isinstance(saved, dict) and all(key in saved for key in OURS):
        _require_colours(path, len(saved["normalization"]["mean"]))
        return _ours(path, saved)
    with tempfile.TemporaryDirectory(prefix="densessl_show_") as folder:
        weights = Path(folder) / "weights.pth"
        _convert(path, weights)
        state = read(weights)
        _require_colours(path, vars(state)["densessl"].get("channels", COLOURS))
        return converted(path, state)


def _require_colours(path: str, channels: int) -> None:
    if channels != COLOURS:
        raise InputError(
            f"{path} is of images of {channels} channels (DATA.CHANNELS); show draws pictures in "
            "colour, for networks of RGB images"
        )


def read(path: str | Path) -> Any:
    """What ``torch.save`` wrote, or None where that cannot be read without running anything.

    Raises InputError for a file whose bytes are not those that were written.
    """
    import pickle

    import torch

    from densessl.core.checkpoint import damage

    try:
        with open(path, "rb") as stream:
            if stream.read(len(ZIP)) != ZIP:  # not of today's torch.save
                return None
        archive.check_file(path, in_memory=False)
        if reason := damage(Path(path), copied=True):
            raise InputError(f"{path} is damaged ({reason})")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError):
        return None  # the conversion says why, in better words


def _ours(path: str, saved: dict[str, Any]) -> Pretrained:
    import yaml

    from .. import config
    from ..backbones import build_backbone

    cfg = config.defaults()
    try:
        config.merge(cfg, yaml.safe_load(saved["config"]), f"the config in {path}")
        backbone = build_backbone(cfg.BACKBONE.NAME, norm="BN")
        backbone.load_state_dict(saved["backbone"])
        mean, std = (tuple(map(float, saved["normalization"][key])) for key in ("mean", "std"))
    except (yaml.YAMLError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {_first_line(error)}") from None
    return Pretrained(
        backbone=backbone.eval(),
        name=Path(path).name,
        network=cfg.BACKBONE.NAME,
        method=str(saved.get("method", cfg.METHOD.NAME)),
        iteration=int(saved.get("iteration", 0)),
        cfg=cfg,
        mean=mean,
        std=std,
        bounds=_bounds(saved.get("range")),
    )


def _bounds(held: Any) -> tuple[float, float] | None:
    """A range as a checkpoint holds it: two numbers, or nothing where all images had 8 bits."""
    return (float(held[0]), float(held[1])) if held else None


def _convert(path: str, weights: Path) -> None:
    """Run ``densessl convert`` to torchvision's names (a ViT: timm's); its message is ours.

    Between the two packages only files pass.
    """
    command = [sys.executable, "-m", "densessl", "convert", str(path), "-o", str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return
    *_, message = done.stderr.rpartition("densessl convert: ")
    message = message.strip() if "densessl convert: " in done.stderr else _last_line(done.stderr)
    message = message.removeprefix(str(path)).lstrip(": ")
    kind = EnvironmentLacks if done.returncode == EnvironmentLacks.exit_code else InputError
    raise kind(f"{path} is not of densessl pretrain, and densessl convert refuses it: {message}")


def converted(path: str, state: dict[str, Any]) -> Pretrained:
    """The backbone of a state dict that ``densessl convert`` wrote, by the facts that it carries.

    A network for BGR images becomes one for RGB, its first convolution's channels reversed.
    """
    from .. import config
    from ..backbones import build_backbone

    facts = vars(state)["densessl"]
    backbone: Any = build_backbone(facts["network"], norm="BN")
    tensors = dict(state)
    mean, std = (
        [value / 255 for value in facts["normalization"][key]]
        for key in ("pixel_mean", "pixel_std")
    )
    if facts["channel_order"] == "BGR":
        first = f"{first_layer(facts['network'])}.weight"
        tensors[first] = tensors[first].flip(1)
        mean, std = mean[::-1], std[::-1]
    backbone.load_state_dict(tensors)
    if facts.get("stride_in_1x1"):
        for layer in (backbone.layer2, backbone.layer3, backbone.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    return Pretrained(
        backbone=backbone.eval(),
        name=Path(path).name,
        network=facts["network"],
        method=str(facts["method"]),
        iteration=0,
        cfg=config.defaults(),
        mean=tuple(mean),
        std=tuple(std),
        bounds=_bounds((facts.get("pretrain") or {}).get("range")),
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
