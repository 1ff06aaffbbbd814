"""The optimizer of a detector, and the learning rate of the semantic segmentation protocols."""

from densessl.core.errors import InputError
from densessl.core.schedules import polynomial

from . import compat
from .config import SGD

FULL_MODEL = "full_model"  # SOLVER.CLIP_GRADIENTS.CLIP_TYPE that Detectron2 does not have


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


def build_optimizer(cfg, model):
    """Detectron2's SGD or, by SOLVER.OPTIMIZER ``adamw``, AdamW with Detectron2's groups.

    With AdamW position embeddings (``pos_embed``) are not decayed, and SOLVER.LAYER_DECAY lowers a
    ViT's rates block by block: that of layer k (0: before the blocks) is the rate times
    decay ** (blocks + 1 - k). Source: Li et al. 2022 (2203.16527), appendix, and Detectron2,
    projects/ViTDet. SOLVER.CLIP_GRADIENTS.CLIP_TYPE may be ``full_model``: the norm is that of all
    gradients together. Raises InputError for a layer decay without a ViT.
    """
    compat.setup()
    import torch
    from detectron2.solver import build_optimizer as detectron2_build
    from detectron2.solver.build import get_default_optimizer_params

    solver = cfg.SOLVER
    adamw, clips = solver.get("OPTIMIZER", SGD) != SGD, _clips_together(cfg)
    if not (adamw or clips):
        return detectron2_build(cfg, model)
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        overrides={"pos_embed": {"weight_decay": 0.0}} if adamw else None,
    )
    if not adamw:
        return _clipping(cfg, torch.optim.SGD)(
            groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV
        )
    factors = rate_factors(model, solver.LAYER_DECAY)
    same: dict[tuple[float, float], list] = {}  # one step of the GPU for all of a kind
    for group in groups:
        for parameter in group["params"]:
            rate = group["lr"] * factors.get(parameter, 1.0)
            same.setdefault((rate, group["weight_decay"]), []).append(parameter)
    groups = [{"params": each, "lr": lr, "weight_decay": wd} for (lr, wd), each in same.items()]
    return _clipping(cfg, torch.optim.AdamW)(groups, lr=solver.BASE_LR, betas=tuple(solver.BETAS))


def rate_factors(model, decay: float) -> dict:
    """Of each parameter of a ViT that is the backbone of ``model`` what its rate is multiplied by;
    nothing for a ``decay`` of 1. Raises InputError where there is no ViT."""
    from .modeling import TimmBackbone

    if decay == 1:
        return {}
    for module in model.modules():
        if isinstance(module, TimmBackbone):
            layers = dict(module.layers())
            last = len(module.timm_network.blocks) + 1
            return {each: decay ** (last - layer) for each, layer in layers.items()}
    raise InputError(
        f"SOLVER.LAYER_DECAY is {decay}, but the backbone is no ViT; allowed: 1.0, or weights of a "
        "ViT"
    )


def _clips_together(cfg) -> bool:
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    return clipping.ENABLED and clipping.CLIP_TYPE == FULL_MODEL


def _clipping(cfg, kind: type) -> type:
    """The optimizer ``kind`` with gradients clipped before each step, as the config says."""
    import torch
    from detectron2.solver.build import maybe_add_gradient_clipping

    if not _clips_together(cfg):
        return maybe_add_gradient_clipping(cfg, kind)
    clipping = cfg.SOLVER.CLIP_GRADIENTS

    class Clipping(kind):  # type: ignore[misc, valid-type]  # a class of torch's
        def step(self, closure=None):
            every = [each for group in self.param_groups for each in group["params"]]
            torch.nn.utils.clip_grad_norm_(every, clipping.CLIP_VALUE, clipping.NORM_TYPE)
            return super().step(closure)

    return Clipping
