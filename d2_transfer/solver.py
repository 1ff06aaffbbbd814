"""The learning rate of the semantic segmentation protocols."""

from densessl.core.errors import InputError
from densessl.core.schedules import polynomial

from . import compat


class PolyLR(compat.lr_scheduler_class()):  # type: ignore[misc]  # a class of torch's
    """lr(t) = (base - min_lr) (1 - t / max_iter)^power + min_lr, for every parameter group.

    mmcv's ``poly`` policy by iteration; ``min_lr`` is an absolute rate that is added, not a bound.
    ``last_iter``: iterations done, less one (as ``last_epoch`` of torch's schedulers). After
    ``max_iter`` the rate stays at ``min_lr``. Raises InputError where the rate would not fall.
    """

    def __init__(self, optimizer, max_iter: int, power: float, min_lr: float, last_iter: int = -1):
        lowest = min(group.get("initial_lr", group["lr"]) for group in optimizer.param_groups)
        if max_iter < 1 or power <= 0 or not 0 <= min_lr <= lowest:
            raise InputError(
                f"PolyLR with SOLVER.MAX_ITER {max_iter}, POLY_POWER {power} and MIN_LR {min_lr}; "
                f"allowed: 1 or more, more than 0, and 0 up to the lowest learning rate, {lowest}"
            )
        self.max_iter, self.power, self.min_lr = max_iter, power, min_lr
        super().__init__(optimizer, last_iter)

    def get_lr(self) -> list[float]:
        share = self.last_epoch / self.max_iter
        return [polynomial(base, self.min_lr, self.power, share) for base in self.base_lrs]

    def state_dict(self) -> dict:
        """Where it stands; the curve itself is the config's, as in Detectron2's LRMultiplier."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}


def build_lr_scheduler(cfg, optimizer):
    """The scheduler of SOLVER.LR_SCHEDULER_NAME: PolyLR, one of Detectron2's, or, in a config
    with the options of its project DeepLab, that project's WarmupPolyLR.

    Raises InputError for a name that neither knows, and for PolyLR with a warm-up.
    """
    compat.setup()
    from detectron2.solver import build_lr_scheduler as detectron2_build

    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupPolyLR" and "POLY_LR_POWER" in solver:
        from detectron2.projects.deeplab import build_lr_scheduler as deeplab_build

        return deeplab_build(cfg, optimizer)
    if solver.LR_SCHEDULER_NAME != "PolyLR":
        try:
            return detectron2_build(cfg, optimizer)
        except ValueError as error:
            raise InputError(
                f"SOLVER.LR_SCHEDULER_NAME is '{solver.LR_SCHEDULER_NAME}': {error}"
            ) from None
    if solver.WARMUP_ITERS:
        raise InputError(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS}; allowed with LR_SCHEDULER_NAME PolyLR: "
            "0, it has no warm-up"
        )
    return PolyLR(optimizer, solver.MAX_ITER, solver.POLY_POWER, solver.MIN_LR)
