"""``--mini``: any protocol, shrunk to two cores."""

from collections.abc import Callable

from configs import FOLDER

FILE = FOLDER / "transfer" / "mini.yaml"


def shrink(cfg, full) -> Callable[[set[str]], None]:
    """Lay ``mini.yaml`` over ``cfg``, and return what shrinks the rest in proportion.

    The returned function is called after the user's overrides with the keys that they named, which
    it leaves alone: anchors follow MIN_SIZE_TEST, STEPS and WARMUP_ITERS follow MAX_ITER, each as
    in ``full``, the protocol's own config.
    """
    cfg.merge_from_file(str(FILE))

    def shrink_rest(named: set[str]) -> None:
        image = cfg.INPUT.MIN_SIZE_TEST / full.INPUT.MIN_SIZE_TEST
        time = cfg.SOLVER.MAX_ITER / full.SOLVER.MAX_ITER
        if "MODEL.ANCHOR_GENERATOR.SIZES" not in named:
            sizes = full.MODEL.ANCHOR_GENERATOR.SIZES
            cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size * image for size in level] for level in sizes]
        if "SOLVER.STEPS" not in named:
            steps = sorted({int(step * time) for step in full.SOLVER.STEPS} - {0})
            cfg.SOLVER.STEPS = tuple(steps)
        if "SOLVER.WARMUP_ITERS" not in named:
            cfg.SOLVER.WARMUP_ITERS = max(cfg.SOLVER.MAX_ITER // 10, 1)

    return shrink_rest
