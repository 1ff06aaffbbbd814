"""Where a config contradicts the data or itself: what a run may do, and nearly never should.

``densessl pretrain`` warns of it once, and ``densessl advise`` gives nothing that is warned of.
"""

from typing import Any

from fvcore.common.config import CfgNode

from .engine.schedules import total_steps
from .methods import find_method

RULE = 256  # images at which the rates of all built-in configs are meant
FAR = 2  # times the rate of the linear rule, or one such part of it
LEAST_VIEW = 64  # pixels; 2 x 2 positions of a ResNet's last level, which smaller views lack
STARTS = (("SOLVER.WARMUP_EPOCHS", "epochs"), ("DENSE.WARMUP_STEPS", "steps"))  # of any method


def contradictions(cfg: CfgNode, images: int) -> list[str]:
    """A sentence for each option of a valid ``cfg`` that does not go with so many images.

    Every one names the option, its value, and what would suit. A pure function; what only shows
    when images are opened is :func:`too_large_views`.
    """
    batch, solver = cfg.SOLVER.BATCH_SIZE, cfg.SOLVER
    epoch = max(images // batch, 1)
    steps = total_steps(solver, epoch)
    found = []
    if 2 * batch > images:
        found.append(
            f"SOLVER.BATCH_SIZE is {batch}, more than half of the {images} images: every step sees "
            f"nearly the same ones; at most {max(images // 2, 2)} would suit"
        )
    if option := momentum_option(cfg):
        momentum = option_of(cfg, option)
        if horizon(momentum) > steps:
            found.append(
                f"{option} is {momentum:g}, a mean over {horizon(momentum):.0f} steps, and the run "
                f"has {steps}: the momentum encoder stays near its start; at most "
                f"{1 - 1 / max(steps, 1):.4g} would suit"
            )
    rate = over_rule(cfg)
    if not 1 / FAR <= rate <= FAR:
        found.append(
            f"SOLVER.REFERENCE_BATCH is {solver.REFERENCE_BATCH}, so the learning rate is {rate:g} "
            f"times that of the linear rule ({solver.BASE_LR:g} at {RULE} images); too high a rate "
            f"collapses the embeddings; REFERENCE_BATCH {RULE} is the rule"
        )
    for option, unit in starts(cfg):
        length = option_of(cfg, option) * (epoch if unit == "epochs" else 1)
        if length and length >= steps:
            whole = steps / epoch if unit == "epochs" else steps
            found.append(
                f"{option} is {option_of(cfg, option):g} {unit}, and the whole run has only "
                f"{whole:.4g}; a tenth of them would suit"
            )
    return found


def over_rule(cfg: CfgNode) -> float:
    """How many times that of the linear rule the learning rate is."""
    return RULE / cfg.SOLVER.REFERENCE_BATCH


def too_large_views(cfg: CfgNode, side: float) -> list[str]:
    """A sentence where views are larger than images whose shorter sides are about ``side`` px."""
    size = cfg.VIEWS.SIZE
    if size <= max(side, LEAST_VIEW):
        return []
    return [
        f"VIEWS.SIZE is {size}, and the images are smaller (shorter sides of about {side:g} px): "
        f"views are magnified and cost time without showing more; {max(int(side), LEAST_VIEW)} "
        "would suit"
    ]


def starts(cfg: CfgNode) -> list[tuple[str, str]]:
    """The options of what rests, or grows, at the start of a run, and their units."""
    return [*STARTS, *find_method(cfg.METHOD.NAME).starts]


def momentum_option(cfg: CfgNode) -> str | None:
    """The option that holds the momentum of the method's encoder; None where it has none."""
    return find_method(cfg.METHOD.NAME).momentum_option


def horizon(momentum: float) -> float:
    """Over how many steps a moving mean reaches, 1/(1 − m); infinite for a momentum of 1."""
    return 1 / (1 - momentum) if momentum < 1 else float("inf")


def option_of(cfg: CfgNode, name: str) -> Any:
    """The value of an option by its dotted name."""
    group, key = name.split(".")
    return cfg[group][key]
