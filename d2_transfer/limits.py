"""Whether this machine's shared memory and file handles suffice for a protocol's loaders."""

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
    if "TASK" in cfg:
        trains = not evaluates and "IMS_PER_BATCH" in cfg.SOLVER
        images = cfg.SOLVER.IMS_PER_BATCH // processes if trains else cfg.TEST.IMS_PER_BATCH
        edges = cfg.INPUT.SIZE
        height, width = (edges, edges) if isinstance(edges, int) else edges
        size, tensors = images * 3 * height * width, 2
    else:
        images = 1 if evaluates else cfg.SOLVER.IMS_PER_BATCH // processes
        size, tensors = images * _bytes_of_image(cfg, evaluates), 4 * images
    check_loading(round(size), tensors, cfg.DATALOADER.NUM_WORKERS, here, OPTION)


def _bytes_of_image(cfg, evaluates: bool) -> float:
    """RGB, and eight bytes a pixel where labels come with it."""
    given = cfg.INPUT
    if are_semantic(cfg.DATASETS.TRAIN) and not evaluates:
        height, width = given.CROP.SIZE if given.CROP.ENABLED else given.SCALE
        return (3 + 8) * height * width
    sides = [given.MIN_SIZE_TEST] if evaluates else given.MIN_SIZE_TRAIN
    return 3 * max(sides) ** 2 * ASPECT
