"""Whether this machine suffices for a protocol, and what would need less of it."""

from densessl.core.limits import check_loading

from .datasets.layouts import are_semantic

OPTION = "DATALOADER.NUM_WORKERS"
ASPECT = 4 / 3  # of a photograph


def check_machine(cfg, processes: int, here: int, evaluates: bool = False) -> None:
    """Raise EnvironmentLacks where the batches that loader processes hold do not fit.

    ``cfg``: of any protocol; ``processes`` share a batch, of which ``here`` run
    on this machine. ``evaluates``: no step of training will follow. Photographs have other sizes
    than these, so it is an estimate; what it does not see is reported when it happens.
    """
    trains = _trains(cfg, evaluates)
    if "TASK" in cfg:
        images = cfg.SOLVER.IMS_PER_BATCH // processes if trains else cfg.TEST.IMS_PER_BATCH
        edges = cfg.INPUT.SIZE
        height, width = (edges, edges) if isinstance(edges, int) else edges
        size, tensors = images * 3 * height * width, 2
    else:
        images = cfg.SOLVER.IMS_PER_BATCH // processes if trains else 1
        size, tensors = images * _bytes_of_image(cfg, evaluates), 4 * images
    check_loading(round(size), tensors, cfg.DATALOADER.NUM_WORKERS, here, OPTION)


def smaller(cfg, processes: int, evaluates: bool = False) -> list[str]:
    """With which options each of ``processes`` takes less memory of its GPU, one a line."""
    solver, given = cfg.SOLVER, cfg.INPUT
    if "TASK" not in cfg and evaluates:
        return [f"INPUT.MAX_SIZE_TEST {given.MAX_SIZE_TEST * 3 // 4} (smaller images)"]
    fixes = [] if solver.AMP.ENABLED else ["SOLVER.AMP.ENABLED True (activations take half)"]
    if _trains(cfg, evaluates) and (each := solver.IMS_PER_BATCH // processes) > 1:
        batch = each // 2 * processes
        rate = solver.BASE_LR * batch / solver.IMS_PER_BATCH
        follows = "(the rate follows)" if "TASK" in cfg else f"SOLVER.BASE_LR {rate:g}"
        fixes.append(f"SOLVER.IMS_PER_BATCH {batch} {follows}")
    if "TASK" not in cfg:
        if (jitter := given.get("LSJ")) and (side := jitter.SIZE * 3 // 128 * 32):
            keys = ("INPUT.LSJ.SIZE", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")
            return [*fixes, f"{' '.join(f'{key} {side}' for key in keys)} (smaller images)"]
        crops = are_semantic(cfg.DATASETS.TRAIN) and given.CROP.ENABLED
        size = [n * 3 // 4 for n in given.CROP.SIZE] if crops else given.MAX_SIZE_TRAIN * 3 // 4
        key = "INPUT.CROP.SIZE" if crops else "INPUT.MAX_SIZE_TRAIN"
        return [*fixes, f"{key} {str(size).replace(' ', '')} (smaller images)"]
    if cfg.TEST.IMS_PER_BATCH > 1:
        fixes.append(f"TEST.IMS_PER_BATCH {cfg.TEST.IMS_PER_BATCH // 2} (where it evaluates)")
    if "FEATURES" in cfg:
        fixes.append(f"FEATURES.POSITIONS {cfg.FEATURES.POSITIONS // 2} (that are learnt from)")
    return fixes


def _trains(cfg, evaluates: bool) -> bool:
    """Whether a protocol with ``cfg`` trains a network, or a layer on its features."""
    return not evaluates and cfg.get("TASK", "") in ("", "linear", "finetune")


def _bytes_of_image(cfg, evaluates: bool) -> float:
    """RGB, and eight bytes a pixel where labels come with it."""
    given = cfg.INPUT
    if are_semantic(cfg.DATASETS.TRAIN) and not evaluates:
        height, width = given.CROP.SIZE if given.CROP.ENABLED else given.SCALE
        return (3 + 8) * height * width
    sides = [given.MIN_SIZE_TEST] if evaluates else given.MIN_SIZE_TRAIN
    if not evaluates and "LSJ" in given and given.LSJ.SIZE:
        return 3 * given.LSJ.SIZE**2
    return 3 * max(sides) ** 2 * ASPECT
