"""``--mini``: any protocol, shrunk to two cores."""

from collections.abc import Callable, Collection
from pathlib import Path

from densessl.configs import FOLDER
from densessl.core import options

from . import projects
from .config import DETECTORS, VITDET
from .datasets.layouts import are_semantic


def file(semantic: bool, named: Collection[str], backbone: str) -> Path:
    """The miniature of a kind of protocols, with the options of the ``named`` projects.

    ``backbone``: MODEL.BACKBONE.NAME.
    """
    if backbone == VITDET:
        name = "mini_vitdet.yaml"
    elif semantic:
        name = "mini_deeplab.yaml" if "DeepLab" in named else "mini_semseg.yaml"
    else:
        name = "mini_pointrend.yaml" if "PointRend" in named else "mini.yaml"
    return FOLDER / "transfer" / name


def shrink(cfg, full) -> Callable[[set[str]], None]:
    """Lay the miniature of its kind over ``cfg``, and return what shrinks the rest in proportion.

    The returned function is called after the user's overrides with the keys that they named, which
    it leaves alone: a detector's anchors follow MIN_SIZE_TEST, STEPS and WARMUP_ITERS follow
    MAX_ITER, each as in ``full``, the protocol's own config.
    """
    semantic = are_semantic(cfg.DATASETS.TRAIN)
    named = projects.among(options.flat(cfg))
    cfg.merge_from_file(str(file(semantic, named, cfg.MODEL.BACKBONE.NAME)))

    if head := DETECTORS.get(cfg.MODEL.META_ARCHITECTURE):  # few steps: no class is certain
        cfg.MODEL[head].SCORE_THRESH_TEST = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST

    if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
        combined = cfg.MODEL.PANOPTIC_FPN.COMBINE
        combined.INSTANCES_CONFIDENCE_THRESH = 0.1
        share = (cfg.INPUT.MIN_SIZE_TEST / full.INPUT.MIN_SIZE_TEST) ** 2
        combined.STUFF_AREA_LIMIT = round(combined.STUFF_AREA_LIMIT * share)  # in pixels

    def shrink_rest(named: set[str]) -> None:
        time = cfg.SOLVER.MAX_ITER / full.SOLVER.MAX_ITER
        if not semantic and "MODEL.ANCHOR_GENERATOR.SIZES" not in named:
            image = cfg.INPUT.MIN_SIZE_TEST / full.INPUT.MIN_SIZE_TEST
            sizes = full.MODEL.ANCHOR_GENERATOR.SIZES
            cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size * image for size in level] for level in sizes]
        if cfg.MODEL.FPN.TRANSFER and "MODEL.FPN.OUT_CHANNELS" not in named:
            cfg.MODEL.FPN.OUT_CHANNELS = full.MODEL.FPN.OUT_CHANNELS
        if "SOLVER.STEPS" not in named:
            steps = sorted({int(step * time) for step in full.SOLVER.STEPS} - {0})
            cfg.SOLVER.STEPS = tuple(steps)
        if full.SOLVER.WARMUP_ITERS and "SOLVER.WARMUP_ITERS" not in named:
            cfg.SOLVER.WARMUP_ITERS = max(cfg.SOLVER.MAX_ITER // 10, 1)

    return shrink_rest
