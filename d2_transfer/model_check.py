"""Whether a config makes a model that fits its data, and whether anything reads what a user set."""

from collections.abc import Collection

from densessl.core import options
from densessl.core.errors import InputError

from . import compat, windows
from .config import DETECTORS, REPEATING
from .datasets.layouts import are_panoptic, are_semantic
from .modeling.sliding_window import SEGMENTORS
from .trainer import Trainer, build_mapper
from .windows import ENABLED

compat.setup()
from detectron2.config import CfgNode  # noqa: E402
from detectron2.data import MetadataCatalog  # noqa: E402
from detectron2.modeling import PanopticFPN, SemanticSegmentor  # noqa: E402

LOOKED_AT = ("MODEL.", "INPUT.", "SOLVER.")  # what a model, its data and its schedule are made of
LATER = {  # of these, what is read before, or once a trial has begun
    "INPUT.CHANNELS",
    "MODEL.FPN.TRANSFER",
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE",
    "SOLVER.AMP.DTYPE",
    "SOLVER.AMP.ENABLED",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.REFERENCE_WORLD_SIZE",
}
DEEPLAB = "build_resnet_deeplab_backbone"  # has no basic blocks
NEVER = {  # what other trainers read
    "DATALOADER.REPEAT_SQRT",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN",
    "DATASETS.PROPOSAL_FILES_TEST",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "TEST.AUG.ENABLED",
    "TEST.AUG.FLIP",
    "TEST.AUG.MAX_SIZE",
    "TEST.AUG.MIN_SIZES",
}


def check_model(cfg, named: Collection[str] = ()) -> None:
    """Make the model, its inputs and its schedule once, on the CPU, without reading an image.

    What Detectron2 would say of a wrong option in a trial, with a traceback, is an InputError here,
    and so are a model that has other classes than the data sets, or learns from what they lack, and
    an option among the ``named`` that nothing reads. The data sets must be registered.
    """
    own, read = watched(cfg)
    own.MODEL.DEVICE = "cpu"
    try:
        model = Trainer.build_model(own)
        for is_train in (True, False):
            build_mapper(own, is_train)
        Trainer.build_lr_scheduler(own, Trainer.build_optimizer(own, model))
    except InputError:
        raise
    except Exception as error:  # an assertion, a missing key, a shape: whatever the option breaks
        depth, network = cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.BACKBONE.NAME
        if isinstance(error, KeyError) and error.args == (depth,):
            allowed = "50, 101, 152" if network == DEEPLAB else "18, 34, 50, 101, 152"
            raise InputError(
                f"MODEL.RESNETS.DEPTH is {depth}, which MODEL.BACKBONE.NAME '{network}' does not "
                f"build; allowed: {allowed}"
            ) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the config makes no model: {type(error).__name__}: {reason}") from None
    if cfg.LAZY.CONFIG:  # its keys are its own, and what stands for it here is read by nothing
        return
    _check_kind(cfg, model)
    _check_read(cfg, read, named)
    _check_classes(cfg)


def _check_kind(cfg, model) -> None:
    """Refuse a model of Detectron2's that cannot learn from what the data sets have."""
    has, alone = "label images" if are_semantic(cfg.DATASETS.TRAIN) else "objects", " alone"
    if are_panoptic(cfg.DATASETS.TRAIN):
        has, alone = "objects and label images", ""
    if isinstance(model, PanopticFPN):
        needs = "objects and label images"
    elif isinstance(model, SemanticSegmentor):
        needs = "label images"
    elif cfg.MODEL.META_ARCHITECTURE in DETECTORS:
        needs = "objects"
    else:  # the user's own
        return
    if needs != has:
        raise InputError(
            f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', which learns from "
            f"{needs}; {', '.join(cfg.DATASETS.TRAIN)} has {has}{alone}"
        )


def _check_classes(cfg) -> None:
    network, semantic = cfg.MODEL.META_ARCHITECTURE, are_semantic(cfg.DATASETS.TRAIN)
    kinds = {}
    if not semantic:
        kinds[DETECTORS.get(network, "ROI_HEADS")] = "thing_classes"
    if semantic or network == "PanopticFPN":
        kinds["SEM_SEG_HEAD"] = "stuff_classes"
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        for node, kind in kinds.items():
            classes = MetadataCatalog.get(name).get(kind)
            if classes is not None and len(classes) != cfg.MODEL[node].NUM_CLASSES:
                raise InputError(
                    f"MODEL.{node}.NUM_CLASSES is {cfg.MODEL[node].NUM_CLASSES}, but {name} has "
                    f"{len(classes)} classes"
                )


def watched(cfg, prefix: str = "", read: set[str] | None = None) -> tuple[CfgNode, set[str]]:
    """A copy of a config, not frozen, and the set of keys that are read from it from now on."""
    read = set() if read is None else read

    class Watched(CfgNode):
        def __getattr__(self, name):
            read.add(prefix + name)
            return super().__getattr__(name)

        def __getitem__(self, name):
            read.add(prefix + name)
            return super().__getitem__(name)

        def get(self, name, default=None):
            read.add(prefix + name)
            return super().get(name, default)

    node = Watched()
    for name, value in cfg.items():
        deeper = isinstance(value, dict)
        dict.__setitem__(
            node, name, watched(value, f"{prefix}{name}.", read)[0] if deeper else value
        )
    return node, read


def _check_read(cfg, read: set[str], named: Collection[str]) -> None:
    """InputError for an option among the ``named`` that nothing has read or will read.

    ``read``: the keys that were read while all was made of ``cfg``. A model in the place of a
    protocol's own may know no sliding windows.
    """
    flat, network = options.flat(cfg), cfg.MODEL.META_ARCHITECTURE
    repeats = cfg.DATALOADER.SAMPLER_TRAIN == REPEATING
    never = NEVER if repeats else NEVER | {"DATALOADER.REPEAT_THRESHOLD"}
    later = LATER if cfg.SOLVER.AMP.ENABLED else LATER - {"SOLVER.AMP.DTYPE"}
    unread = [
        key
        for key in sorted(named)
        if key in never or (key.startswith(LOOKED_AT) and key not in later | read)
    ]
    if unread:
        raise InputError(
            f"{unread[0]} is set to {flat[unread[0]]!r}, but nothing of this config reads it (with "
            f"MODEL.META_ARCHITECTURE {network} on {', '.join(cfg.DATASETS.TRAIN)}): leave it out"
        )
    windows.check_used(cfg, named)
    semantic = are_semantic(cfg.DATASETS.TRAIN)
    slides = network in SEGMENTORS or ENABLED in read if semantic else network in DETECTORS
    if flat[ENABLED] and not slides:
        raise InputError(
            f"{ENABLED} is True, but MODEL.META_ARCHITECTURE {network} has no sliding window: set "
            f"{ENABLED} False to evaluate whole images"
        )
