"""Options of a run that are changed on purpose: ``densessl pretrain … --change SOLVER.BASE_LR``.

A run is resumed with the options that it had. With ``--change`` it takes exactly those named at
their new values; its checkpoints, its config.yaml and the records of its weights say so.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from densessl.core.errors import InputError, unknown

from .. import config
from .resume import FREE, differences, differing
from .schedules import learning_rate, total_steps

Change = dict[str, Any]  # "step": steps done before it; "options": {key: [old, new]}
FIXED = {  # what a checkpoint's tensors or its count of steps are bound to
    "METHOD.NAME": "another method is another run",
    "BACKBONE.NAME": "another backbone is another run",
    "SOLVER.OPTIMIZER": "its state is that of the old optimizer",
    "SOLVER.BATCH_SIZE": "the run counts its epochs in steps of that many images",
    "DATA.TILE": "it counts its epochs in tiles",
    "DATA.FRAME_RATE": "it counts its epochs in frames",
}
ANEW = "give another OUTPUT_DIR to start anew"


def named(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys that ``--change`` names, and the ``KEY VALUE`` words among what it was given.

    A value may stand behind its key (``SOLVER.BASE_LR 0.01``, ``SOLVER.BASE_LR=0.01``) or among the
    other overrides. Raises InputError for an unknown option.
    """
    known = config.option_names(config.defaults())
    keys: list[str] = []
    values: list[str] = []
    left = [str(word) for word in words]
    while left:
        key, equals, value = left.pop(0).partition("=")
        if key not in known and not key.startswith(config.FREE):
            raise unknown("option", key, known, "--change")
        keys.append(key)
        if equals:
            values += [key, value]
        elif left and left[0].partition("=")[0] not in known:
            values += [key, left.pop(0)]
    return keys, values


def changes_of(
    path: Path, state: dict[str, Any], cfg: CfgNode, keys: Sequence[str]
) -> list[Change]:
    """All changes of the run whose checkpoint ``path`` holds, the last made now by ``keys``.

    Raises InputError where options differ that are not named, for one that is named and does not
    differ (unless an earlier session changed it), and for one that a run cannot change.
    """
    before = list(state["pretrain"].get("changes", []))
    differ = differing(state["config"], cfg)
    if any(key not in keys for key in differ):
        listed = "\n  ".join(differences(state["config"], cfg))
        bound = ", ".join(key for key in differ if key in FIXED)
        new = f", resume it with the new ones by --change {shlex.join(differ)}"
        raise InputError(
            f"{path} belongs to a run with other options (checkpoint -> now):\n  {listed}\n"
            "Give these options their old values to resume it"
            f"{f' (a run cannot change {bound})' if bound else new}, or {ANEW}."
        )
    for key in differ:
        if key in FIXED:
            raise InputError(f"--change {key}: a run cannot change it, {FIXED[key]}; {ANEW}")
    done = {key for change in before for key in change["options"]}
    for key in keys:
        if key not in differ and key not in FREE and key not in done:
            value = config.flat(cfg).get(key)
            raise InputError(
                f"--change names {key}, but its value is the one that {path} has: {value}; give "
                f"the new one, as in '{key} VALUE --change {key}'"
            )
    if not differ:
        return before
    return [*before, {"step": state["iteration"], "options": _plain(differ)}]


def check_length(state: dict[str, Any], cfg: CfgNode) -> None:
    """InputError where a run with changed options has no step left."""
    facts, done = state["pretrain"], state["iteration"]
    total = total_steps(cfg.SOLVER, facts["images"] // facts["batch_size"])
    if done >= total:
        raise InputError(
            f"the run has done {done} steps, and with SOLVER.EPOCHS {cfg.SOLVER.EPOCHS} and "
            f"SOLVER.MAX_STEPS {cfg.SOLVER.MAX_STEPS} it ends after {total}: nothing is left to "
            f"train with the changed options; give more, or {ANEW}"
        )


def describe(change: Change) -> str:
    """'SOLVER.BASE_LR 0.03 -> 0.01 from step 400 on'."""
    options = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in change["options"].items())
    return f"{options} from step {change['step']} on"


def consequence(state: dict[str, Any], cfg: CfgNode) -> str:
    """What changed options of the solver do to the learning rate, in one line; or nothing."""
    before = config.defaults()
    config.merge(before, yaml.safe_load(state["config"]), "the checkpoint")
    if not any(key.startswith("SOLVER.") for key in differing(state["config"], cfg)):
        return ""
    facts, step = state["pretrain"], state["iteration"]
    epoch = facts["images"] // facts["batch_size"]
    was = learning_rate(before.SOLVER, max(step - 1, 0), epoch)
    now = learning_rate(cfg.SOLVER, step, epoch)
    old, new = (total_steps(solver, epoch) for solver in (before.SOLVER, cfg.SOLVER))
    length = f"{new} steps" if old == new else f"{new} steps, no longer {old}"
    return (
        f"the learning rate was {was:.3g} at the last step and is {now:.3g} at the next: the "
        f"schedule is that of a run of {length} with the new options from its start"
    )


def advice(folder: Path, cfg: CfgNode, step: int | None, processes: int) -> str:
    """What to do after a divergence: the command that resumes with a lower rate.

    ``step`` is that of the newest checkpoint, None where there is none.
    """
    amp = cfg.AMP == "fp16"
    options = {"SOLVER.BASE_LR": f"{cfg.SOLVER.BASE_LR / 2:.6g}"}
    options |= {"AMP": "bf16"} if amp else {}
    words = [word for pair in options.items() for word in pair]
    also = " (AMP off does so, too, and slower)" if amp else ""
    start = ["densessl"]
    if processes > 1:
        start = ["torchrun", "--standalone", "--nproc_per_node", str(processes), "-m", "densessl"]
    command = [*start, "pretrain", "--config", str(folder / "config.yaml"), *words]
    if step is None:
        how = "Look at these images; else start again with a lower learning rate, or warm up "
        how += f"(SOLVER.WARMUP_EPOCHS){also}; nothing was saved yet"
    else:
        how = "Look at these images; else resume from the last checkpoint, that of step "
        how += f"{step}, with a lower learning rate{also}"
        command += ["--change", *options]
    return f"{how}:\n  {shlex.join(command)}"


def _plain(differ: dict[str, tuple[Any, Any]]) -> dict[str, list[Any]]:
    """As a checkpoint and JSON hold it."""
    return {
        key: [list(value) if isinstance(value, tuple) else value for value in pair]
        for key, pair in differ.items()
    }
