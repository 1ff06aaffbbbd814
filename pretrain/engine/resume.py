"""What a checkpoint of a run holds, and whether the same command may resume from it."""

import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from densessl.core import files
from densessl.core.errors import InputError

from .. import config
from ..options import FREE

FINAL = "backbone_final.pth"
NOT_IN_FINAL = ("model", "optimizer", "scaler", "logs", "patience", "unreadable", "watch")


def differences(saved: str, cfg: CfgNode) -> list[str]:
    """'KEY: old -> new' for each option of :func:`differing`."""
    return [f"{key}: {old} -> {new}" for key, (old, new) in differing(saved, cfg).items()]


def differing(saved: str, cfg: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Old and new value of each option that changes the run, between a saved config and ``cfg``.

    An option that the saved config does not know yet counts as having had its default.
    """
    before, now, default = (
        config.flat(yaml.safe_load(saved)),
        config.flat(cfg),
        config.flat(config.defaults()),
    )
    found = {}
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, default.get(key)), now.get(key)
        if key not in FREE and _plain(old) != _plain(new):
            found[key] = (old, new)
    return found


def check_same_data(path: Path, state: dict[str, Any], facts: dict[str, Any]) -> None:
    """Raise InputError unless the images are those that the run of ``path`` began with."""
    before = state["pretrain"]
    if before["images_sha256"] == facts["images_sha256"]:
        return
    how = f"{facts['images']} images now, {before['images']} then"
    if before["images"] == facts["images"]:
        how = f"as many images ({facts['images']}), but other names"
    raise InputError(
        f"{path} belongs to a run on other data: DATA.PATH has {how}. Put the old images back, "
        "or give another OUTPUT_DIR to start anew."
    )


def final_state(state: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint that goes into ``backbone_final.pth``: weights and facts."""
    return {key: value for key, value in state.items() if key not in NOT_IN_FINAL}


def check_writable(folder: str | os.PathLike) -> None:
    """InputError where ``folder`` cannot be made or written to; nothing is made."""
    try:
        files.standing(folder)
    except OSError as error:
        raise InputError(
            f"cannot write into OUTPUT_DIR {folder}: {error.filename}: {error.strerror}"
        ) from None


def writable(folder: str | os.PathLike) -> Path:
    """``folder``, made when missing; InputError when nothing can be written there."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # without a name: no other process clears it away
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into OUTPUT_DIR {folder}: {error.strerror or error}"
        ) from None
    return folder


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
