"""A classification protocol's complete config: its file, the machine, the user's own options."""

from collections.abc import Sequence

from densessl.configs import FOLDER
from fvcore.common.config import CfgNode

from densessl.core.errors import unknown

from ..option_rules import with_decimals
from ..protocols import find
from ..resolve import override
from .config import C, check
from .table import NAMES

SEARCHED = ("BASE_LR", "WEIGHT_DECAY", "HEAD_LR_FACTOR")
MINI = FOLDER / "transfer" / "mini_classification.yaml"


def resolve(
    protocol: str,
    variant: str | None = None,
    gpus: int = 1,
    mini: bool = False,
    overrides: Sequence[str] = (),
    cuda: bool = True,
) -> CfgNode:
    """The protocol's complete config, frozen.

    The images a step are those of all processes: their number (``gpus``) changes nothing but how
    they are shared. ``cuda`` False: for the CPU, without AMP, batch norm per process.
    ``overrides``: KEY VALUE …, applied last, and they win. Raises InputError for unknown names and
    keys (naming the nearest) and for values that do not fit.
    """
    row, variant = find(protocol, variant)
    if row.name not in NAMES:
        raise unknown("protocol", protocol, NAMES, "--protocol")
    cfg = C.clone()
    cfg.merge_from_file(str(FOLDER / "transfer" / row.configs[variant]))
    if not cuda:
        cfg.MODEL.DEVICE, cfg.MODEL.NORM, cfg.SOLVER.AMP.ENABLED = "cpu", "BN", False
    if mini:
        shrink(cfg)
    override(cfg, with_decimals(cfg, overrides))
    check(cfg, gpus, cuda)
    cfg.freeze()
    return cfg


def shrink(cfg: CfgNode) -> None:
    """``--mini``: lay ``mini_classification.yaml`` over ``cfg``, and shrink the rest with it.

    ImageNet's place is taken by the objects of VOC's sets, which scenes have too. Of few images a
    larger share is labelled, the fourth root, drawn by the seed.
    """
    full = cfg.clone()
    cfg.merge_from_file(str(MINI))
    if (full.DATASETS.NAME, full.DATASETS.FOLDER) == ("folder", "imagenet"):
        cfg.DATASETS.NAME = "voc_objects"
    if cfg.TASK == "linear":
        cfg.SOLVER.MAX_ITER *= 3  # a step on a frozen backbone takes a third of the time
    if not full.SEARCH.BASE_LR:
        cfg.SEARCH.BASE_LR = ()
    if full.DATASETS.LIST:
        cfg.DATASETS.LIST, cfg.DATASETS.SHARE = "seeded", round(full.DATASETS.SHARE**0.25, 2)


def describe(cfg: CfgNode, processes: int) -> str:
    """One line on what is done."""
    solver = cfg.SOLVER
    where = f"{processes} process{'es' if processes > 1 else ''} on {cfg.MODEL.DEVICE}"
    image = f"{cfg.INPUT.SIZE} px"
    amp = f"AMP {'on' if solver.AMP.ENABLED else 'off'}"
    if cfg.TASK == "knn":
        ks = ", ".join(map(str, cfg.KNN.KS))
        stages = ", ".join(cfg.KNN.STAGES)
        return (
            f"{where}, {image}, k {ks}, temperature {cfg.KNN.TEMPERATURE:g}, stage {stages}, {amp}"
        )
    scale = solver.IMS_PER_BATCH / solver.REFERENCE_BATCH
    length = f"{solver.MAX_ITER} steps" if solver.MAX_ITER else f"{solver.EPOCHS:g} epochs"
    curve = "a cosine" if solver.SCHEDULE == "cosine" else f"steps at epochs {_list(solver.STEPS)}"
    text = (
        f"{where}, {image}, {solver.IMS_PER_BATCH} images a step, {length}, learning rate "
        f"{solver.BASE_LR * scale:g} = {solver.BASE_LR:g} x {solver.IMS_PER_BATCH}/"
        f"{solver.REFERENCE_BATCH} with {curve}, {amp}"
    )
    if cfg.TASK == "linear" and solver.SWEEP:
        text += f"; beside it rates {_list(solver.SWEEP)} (times the same) in the same pass"
    if tried := combinations(cfg):
        text += (
            f"; first {tried} settings are tried, each trained without {cfg.SEARCH.HELD_OUT:.0%} "
            "of the training images, which choose"
        )
    return text


def combinations(cfg: CfgNode) -> int:
    """How many settings a search tries; 0: it does not take place."""
    grids = [cfg.SEARCH[name] for name in SEARCHED]
    if cfg.TASK != "finetune" or not any(grids):
        return 0
    count = 1
    for grid in grids:
        count *= max(len(grid), 1)
    return count


def _list(values) -> str:
    return ", ".join(f"{value:g}" for value in values)
