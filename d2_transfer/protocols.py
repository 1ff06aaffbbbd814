"""The protocols: a config file, an evaluator and metrics each, and their resolved configs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs import FOLDER
from console.errors import InputError, unknown
from d2_transfer import compat

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a name"}
REFERENCE_GPUS = 8  # the schedules are written for 8 GPUs with 2 images each
NORMS = (
    ("RESNETS", "NORM"),
    ("FPN", "NORM"),
    ("ROI_BOX_HEAD", "NORM"),
    ("ROI_MASK_HEAD", "NORM"),
)


@dataclass(frozen=True)
class Protocol:
    """What a paper's row of numbers was measured with.

    ``configs``: variant → file below ``configs/transfer``; where there is but one way, its variant
    is the empty string, and the first is the default. ``evaluator``: Detectron2's
    ``evaluator_type``. ``metrics``: those of the papers' tables. ``parameters``: millions, of the
    largest variant.
    """

    name: str
    title: str
    configs: dict[str, str]
    evaluator: str
    metrics: tuple[str, ...]
    datasets: tuple[str, ...]
    parameters: float

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(self.configs)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="voc_det_c4",
            title="VOC07+12 detection, Faster R-CNN R50-C4, 24k iterations",
            configs={"": "voc_det_c4.yaml"},
            evaluator="pascal_voc",
            metrics=("bbox/AP", "bbox/AP50", "bbox/AP75"),
            datasets=("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test"),
            parameters=33.0,
        ),
        Protocol(
            name="coco_mask_fpn_1x",
            title="COCO detection and instance segmentation, Mask R-CNN R50-FPN, 90k iterations",
            configs={
                "moco2fc": "coco_mask_fpn_1x_moco2fc.yaml",
                "4conv1fc": "coco_mask_fpn_1x_4conv1fc.yaml",
            },
            evaluator="coco",
            metrics=(
                *("bbox/AP", "bbox/AP50", "bbox/AP75"),
                *("segm/AP", "segm/AP50", "segm/AP75"),
            ),
            datasets=("coco_2017_train", "coco_2017_val"),
            parameters=47.0,
        ),
    )
}


def find(name: str, variant: str | None = None) -> tuple[Protocol, str]:
    """The protocol of that name and its variant (the first unless named); InputError otherwise."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS, "--protocol")
    protocol = PROTOCOLS[name]
    if variant is None:
        return protocol, protocol.variants[0]
    if variant not in protocol.configs:
        if protocol.variants == ("",):
            raise InputError(f"--variant is '{variant}', but {name} has no variants")
        raise unknown("variant", variant, protocol.variants, f"--variant of {name}")
    return protocol, variant


def resolve(
    protocol: str,
    variant: str | None = None,
    weights: str = "",
    gpus: int = REFERENCE_GPUS,
    mini: bool = False,
    overrides: Sequence[str] = (),
    keep_batch: bool = False,
    cuda: bool = True,
):
    """The protocol's complete Detectron2 config, frozen.

    ``gpus`` processes train it: with fewer than 8 the images a step and the learning rate shrink
    and the schedule stretches in proportion (Detectron2's own rule), unless ``keep_batch`` leaves
    16 images a step. ``cuda`` False: for the CPU. ``overrides``: KEY VALUE …, applied last, and
    they win. Raises InputError for unknown keys (naming the nearest) and values that do not fit.
    """
    compat.setup()
    from .miniature import shrink

    found, variant = find(protocol, variant)
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / found.configs[variant]))
    full = cfg.clone()
    if not mini:
        cfg = scale(cfg, gpus, keep_batch)
    if not cuda:
        _for_cpu(cfg, gpus)
    shrink_rest = shrink(cfg, full) if mini else None
    cfg.MODEL.WEIGHTS = weights
    named = _override(cfg, overrides)
    if shrink_rest:
        shrink_rest(named)
    _check(cfg, gpus, cuda)
    cfg.freeze()
    return cfg


def scale(cfg, gpus: int, keep_batch: bool = False):
    """``cfg`` for ``gpus`` GPUs instead of SOLVER.REFERENCE_WORLD_SIZE (facebookresearch/moco#11).

    IMS_PER_BATCH and BASE_LR are multiplied by gpus/8, STEPS, MAX_ITER, WARMUP_ITERS and the
    periods by 8/gpus. ``keep_batch``: none of it; the same images a step on fewer, larger GPUs.
    """
    compat.setup()
    from detectron2.engine import DefaultTrainer

    if keep_batch:
        cfg = cfg.clone()
        cfg.SOLVER.REFERENCE_WORLD_SIZE = gpus
        return cfg
    return DefaultTrainer.auto_scale_workers(cfg, gpus)


def describe(cfg, gpus: int) -> str:
    """One line on what is trained, with what was scaled."""
    solver = cfg.SOLVER
    return (
        f"{gpus} process{'es' if gpus > 1 else ''} on {cfg.MODEL.DEVICE}, "
        f"{solver.IMS_PER_BATCH} images a step, learning rate {solver.BASE_LR:g}, "
        f"{solver.MAX_ITER} iterations with steps at {', '.join(map(str, solver.STEPS))} and "
        f"{solver.WARMUP_ITERS} of warm-up, norm {cfg.MODEL.RESNETS.NORM}, "
        f"AMP {'on' if solver.AMP.ENABLED else 'off'}"
    )


def _for_cpu(cfg, gpus: int) -> None:
    """torch's SyncBN wants CUDA; with one process plain BN has the very same statistics."""
    cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.AMP.ENABLED = False
    for node, key in NORMS:
        if cfg.MODEL[node][key] == "SyncBN":
            cfg.MODEL[node][key] = "BN" if gpus == 1 else "naiveSyncBN"


def _override(cfg, overrides: Sequence[str]) -> set[str]:
    """Merge KEY VALUE … into ``cfg``; returns the keys."""
    if len(overrides) % 2:
        raise InputError(f"overrides come as KEY VALUE pairs; '{overrides[-1]}' has no value")
    allowed = dict(_leaves(cfg))
    keys = set()
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        if key not in allowed:
            raise unknown_key(key, allowed)
        try:
            cfg.merge_from_list([key, value])
        except (ValueError, AssertionError):
            kind = KINDS.get(type(allowed[key]), "a value")
            raise InputError(
                f"{key} is '{value}'; allowed is {kind}, such as {allowed[key]!r}"
            ) from None
        keys.add(key)
    return keys


def unknown_key(key: str, allowed: Sequence[str]) -> InputError:
    """An InputError that names the nearest key, not all the hundreds there are."""
    message = str(unknown("config key", key, allowed))
    return InputError(
        f"{message.split(' Allowed:')[0]} 'densessl transfer --print-config' lists all"
    )


def _leaves(node, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check(cfg, gpus: int, cuda: bool) -> None:
    solver = cfg.SOLVER
    if solver.IMS_PER_BATCH < 1 or solver.IMS_PER_BATCH % gpus:
        raise InputError(
            f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}, which {gpus} GPUs cannot share "
            "evenly; allowed: a multiple of the number of GPUs"
        )
    if solver.MAX_ITER < 1:
        raise InputError(f"SOLVER.MAX_ITER is {solver.MAX_ITER}; allowed: 1 or more")
    if solver.MAX_ITER in solver.STEPS or list(solver.STEPS) != sorted(set(solver.STEPS)):
        raise InputError(
            f"SOLVER.STEPS is {tuple(solver.STEPS)} with SOLVER.MAX_ITER {solver.MAX_ITER}; "
            "allowed: increasing numbers below it (those beyond it are never reached)"
        )
    if not solver.BASE_LR > 0:
        raise InputError(f"SOLVER.BASE_LR is {solver.BASE_LR}; allowed: more than 0")
    if cuda:
        return
    if cfg.MODEL.DEVICE != "cpu":
        raise InputError(f"MODEL.DEVICE is '{cfg.MODEL.DEVICE}', but there is no CUDA device here")
    if solver.AMP.ENABLED:
        raise InputError("SOLVER.AMP.ENABLED is True, but AMP needs a CUDA device")
    for node, key in NORMS:
        if cfg.MODEL[node][key] == "SyncBN":
            raise InputError(
                f"MODEL.{node}.{key} is 'SyncBN', which needs a CUDA device; allowed here: "
                "BN (the same statistics in one process) or naiveSyncBN"
            )
