"""A trained model: how it is read, and what a detector measures."""

import os
from pathlib import Path

from densessl.core import archive
from densessl.core.errors import InputError

from . import compat


def measure(cfg, file: str | os.PathLike, cure: str = "") -> dict[str, float]:
    """The flat metrics of the model in ``file`` on the config's test sets, on the main process.

    Every process of ``comm`` calls it; elsewhere it returns nothing. ``cure``: what the message
    says of a file that cannot be loaded. Raises InputError for that.
    """
    compat.setup()
    from densessl.core.loader import close_all

    from .evaluation import flat_metrics
    from .trainer import Trainer

    model = Trainer.build_model(cfg)
    fill(model, file, cure)
    try:
        return flat_metrics(Trainer.test(cfg, model) or {})
    finally:
        close_all()


def _read(file: str | os.PathLike, cure: str = "") -> dict:
    import torch

    from densessl.core import checkpoint

    archive.check_file(file)
    if Path(file).is_file() and (reason := checkpoint.damage(Path(file), copied=True)):
        raise InputError(f"{file} is damaged ({reason}){cure and '; '}{cure}")
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
        held["model"].keys()
        return held
    except Exception as error:  # torch raises a dozen kinds for files that are not its own
        why = "it has no 'model'" if isinstance(error, KeyError) else type(error).__name__
        raise InputError(
            f"{file} is not the checkpoint of a trained model ({why}){cure and '; '}{cure}"
        ) from None


def fill(model, file: str | os.PathLike, cure: str = "") -> None:
    """Fill every parameter and buffer of ``model``; InputError where the file is another's."""
    ours, state = model.state_dict(), _read(file, cure)["model"]
    wrong = sorted(ours.keys() ^ state.keys())
    wrong += [k for k in ours.keys() & state.keys() if ours[k].shape != state[k].shape]
    if wrong:
        some = ", ".join(wrong[:4]) + (", …" if len(wrong) > 4 else "")
        raise InputError(
            f"{file} is not a model of this protocol, variant and config: {len(wrong)} tensors "
            f"are missing, unknown or of another shape ({some})"
        )
    model.load_state_dict(state)
