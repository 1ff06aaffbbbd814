"""A dense probe's complete config: its file, the machine, the user's own options."""

from collections.abc import Sequence

from densessl.configs import FOLDER
from fvcore.common.config import CfgNode

from densessl.core.errors import unknown

from ..option_rules import with_decimals
from ..protocols import find
from ..resolve import override
from .config import C, check
from .own import OwnData
from .table import NAMES

MINI = FOLDER / "transfer" / "mini_dense_probes.yaml"


def resolve(
    protocol: str,
    variant: str | None = None,
    gpus: int = 1,
    mini: bool = False,
    overrides: Sequence[str] = (),
    cuda: bool = True,
    custom: OwnData | None = None,
) -> CfgNode:
    """The protocol's complete config, frozen.

    ``gpus`` processes share the images, which changes no number. ``cuda`` False: for the CPU.
    ``custom``: the user's own data, for custom_semseg. ``overrides``: KEY VALUE …, applied last,
    and they win. Raises InputError for unknown names and keys (naming the nearest) and for values
    that do not fit.
    """
    row, variant = find(protocol, variant)
    if row.name not in NAMES:
        raise unknown("protocol", protocol, NAMES, "--protocol")
    cfg = C.clone()
    cfg.merge_from_file(str(FOLDER / "transfer" / row.configs[variant]))
    if custom is not None:
        cfg.DATASETS.CUSTOM = " ".join(custom.sha256)
    if not cuda:
        cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = "cpu", False
    if mini:
        cfg.merge_from_file(str(MINI))
    override(cfg, with_decimals(cfg, overrides))
    check(cfg, cuda)
    cfg.freeze()
    return cfg


def describe(cfg: CfgNode, processes: int) -> str:
    """One line on what is done."""
    where = f"{processes} process{'es' if processes > 1 else ''} on {cfg.MODEL.DEVICE}"
    height, width = cfg.INPUT.SIZE
    most = f"at most {cfg.FEATURES.POSITIONS} positions"
    text = f"{where}, {width}×{height} px, levels {', '.join(cfg.FEATURES.LEVELS)}, {most}"
    if cfg.TASK == "linear_semseg":
        norm = "with" if cfg.LINEAR.BATCH_NORM else "without"
        return f"{text}, {norm} batch norm, L2 {cfg.LINEAR.L2:g}"
    if cfg.TASK == "knn_semseg":
        shares = ", ".join(map(str, cfg.KNN.SHARES))
        return f"{text}, k {cfg.KNN.K}, temperature {cfg.KNN.TEMPERATURE:g}, images {shares}"
    more = "".join(f", {count}" for count in cfg.CLUSTERS.COUNTS)
    return f"{text}, clusters: as many as classes{more}; {cfg.CLUSTERS.STARTS} starts"
