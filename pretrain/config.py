"""Every option of ``densessl pretrain``: its default and one line on its meaning.

A config file names only what differs (``_BASE_: other.yaml`` inherits); ``KEY VALUE`` pairs on the
command line come last. The defaults are MoCo-v2 on ImageNet as its authors ran it.
"""

import math
import os
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

import configs
from console.errors import InputError, unknown

C = CfgNode()
C.OUTPUT_DIR = "output"  # the run's folder; a run found there goes on
C.SEED = 0  # everything random is a function of this, the epoch, the sample and the step

C.DATA = CfgNode()
C.DATA.SOURCE = "folder"  # folder: any tree of images; list: a text file of paths; coco: a JSON
C.DATA.PATH = ""  # the folder, the list file, or the folder of COCO's images
C.DATA.ANNOTATIONS = ""  # coco only: the instances JSON that names the images (labels are not read)
C.DATA.WORKERS = 4  # loader processes; any number gives the same run
C.DATA.MAX_UNREADABLE = 0.05  # share of images that may be unreadable before the run stops

C.VIEWS = CfgNode()
C.VIEWS.RECIPE = "moco_v2"  # moco_v1, moco_v2, moco_v2_coord, byol
C.VIEWS.SIZE = 224  # side of a view in pixels

C.BACKBONE = CfgNode()
C.BACKBONE.NAME = "resnet50"  # resnet18, resnet50
C.BACKBONE.NORM = "split"  # split: one process acts as several GPUs; BN: per process; SyncBN
C.BACKBONE.GROUP_SIZE = 32  # split: images a normalisation group (MoCo: 32 a GPU)
C.BACKBONE.ZERO_INIT_RESIDUAL = False  # start every residual block as the identity

C.METHOD = CfgNode()
C.METHOD.NAME = "moco"  # moco, setsim

C.MOCO = CfgNode()
C.MOCO.DIM = 128  # projection channels D
C.MOCO.HIDDEN = 2048  # hidden channels of the projector; 0: one linear layer (MoCo-v1)
C.MOCO.QUEUE = 65536  # keys in the queue, K
C.MOCO.MOMENTUM = 0.999  # of the momentum encoder, m
C.MOCO.TEMPERATURE = 0.2  # τ
C.MOCO.SHUFFLE = True  # ShuffleBN: permute the key batch before the momentum encoder
C.MOCO.SYMMETRIC = False  # also view 2 as query against view 1 as key
C.MOCO.SYMMETRIC_REDUCTION = "mean"  # of the two directions: mean, sum
C.MOCO.SYMMETRIC_ENQUEUE = "both"  # keys of which direction enter the queue: both, second

C.DENSE = CfgNode()  # the dense branch of dense methods
C.DENSE.WEIGHT = 0.5  # λ: loss = (1 − λ) image + λ dense
C.DENSE.WARMUP_STEPS = 0  # λ is 0 for so many steps
C.DENSE.DIM = 128  # channels of the dense projection
C.DENSE.HIDDEN = 2048  # hidden channels of the dense projector
C.DENSE.TEMPERATURE = 0.2  # τ of the dense loss

C.SETSIM = CfgNode()
C.SETSIM.SET = True  # Set: salient set × salient set (eq. 5)
C.SETSIM.STATISTIC = "abs_sum"  # attention: abs_sum (eq. 3), square_mean (released code)
C.SETSIM.THRESHOLD = 0.7  # δ: a position is salient from this attention on
C.SETSIM.MIN_COSINE = 0.0  # drop set pairs of lower backbone cosine; 0: off (released script: 0.2)
C.SETSIM.GEOMETRY_THRESHOLD = 0.5  # Geo: distance below which positions match; 0: off
C.SETSIM.GEOMETRY_FRAME = "pixels"  # pixels: exact crop edges; pixpro: the released frame
C.SETSIM.NEAREST = True  # NN: add the nearest neighbour (eq. 6–7)
C.SETSIM.NEAREST_ROWS = "valid"  # which queries get it: valid (has a positive), salient (eq. 7)
C.SETSIM.REDUCTION = "mean"  # over the queries of an image: mean (released code), sum (eq. 8)

C.SOLVER = CfgNode()
C.SOLVER.BATCH_SIZE = 256  # images a step, over all processes
C.SOLVER.EPOCHS = 200
C.SOLVER.MAX_STEPS = 0  # stop the schedule after so many steps instead of EPOCHS; 0: off
C.SOLVER.BASE_LR = 0.03  # at REFERENCE_BATCH; the rate is scaled linearly with the batch
C.SOLVER.REFERENCE_BATCH = 256
C.SOLVER.MOMENTUM = 0.9
C.SOLVER.WEIGHT_DECAY = 1e-4
C.SOLVER.SCHEDULE = "cosine"  # cosine, step, constant
C.SOLVER.STEPS = (120, 160)  # step: epochs at which the rate is multiplied by GAMMA
C.SOLVER.GAMMA = 0.1
C.SOLVER.PER = "epoch"  # the schedule moves per: epoch (MoCo), step
C.SOLVER.WARMUP_EPOCHS = 0.0  # linear warm-up per step, before the schedule
C.SOLVER.WARMUP_FACTOR = 0.01  # of the rate at step 0 of the warm-up
C.SOLVER.END_LR = 0.0  # cosine: the rate at the end
C.SOLVER.MAX_SKIPPED = 5  # consecutive steps with a NaN or infinite loss or gradient before a stop

C.DEVICE = "auto"  # auto, cpu, cuda
C.AMP = "off"  # off, fp16 (with loss scaling), bf16; losses are float32 in any case
C.CHANNELS_LAST = False  # faster on GPUs with AMP, slower on CPUs
C.COMPILE = False  # torch.compile the backbones

C.CHECKPOINT = CfgNode()
C.CHECKPOINT.PERIOD = 1.0  # epochs between checkpoints
C.CHECKPOINT.STEPS = 0  # steps between checkpoints instead; 0: use PERIOD
C.CHECKPOINT.KEEP = 2  # the newest so many stay; older ones are deleted
C.CHECKPOINT.KEEP_EVERY = 0  # epochs whose checkpoint stays for good (every so many); 0: none

C.LOG = CfgNode()
C.LOG.PERIOD = 10  # steps between lines of metrics.jsonl


STRIDE = 32  # pixels a position of the last level, in every backbone
CHOICES = {
    "DATA.SOURCE": ("folder", "list", "coco"),
    "BACKBONE.NORM": ("split", "BN", "SyncBN"),
    "MOCO.SYMMETRIC_REDUCTION": ("mean", "sum"),
    "MOCO.SYMMETRIC_ENQUEUE": ("both", "second"),
    "SETSIM.STATISTIC": ("abs_sum", "square_mean"),
    "SETSIM.GEOMETRY_FRAME": ("pixels", "pixpro"),
    "SETSIM.NEAREST_ROWS": ("valid", "salient"),
    "SETSIM.REDUCTION": ("mean", "sum"),
    "SOLVER.SCHEDULE": ("cosine", "step", "constant"),
    "SOLVER.PER": ("epoch", "step"),
    "DEVICE": ("auto", "cpu", "cuda"),
    "AMP": ("off", "fp16", "bf16"),
}
RANGES = {  # at least, at most (None: no limit)
    "SEED": (0, None),
    "DATA.WORKERS": (0, None),
    "DATA.MAX_UNREADABLE": (0, 1),
    "VIEWS.SIZE": (8, None),
    "BACKBONE.GROUP_SIZE": (2, None),  # the variance of one image is 0
    "MOCO.DIM": (1, None),
    "MOCO.HIDDEN": (0, None),
    "MOCO.QUEUE": (1, None),
    "MOCO.MOMENTUM": (0, 1),
    "DENSE.WEIGHT": (0, 1),
    "DENSE.WARMUP_STEPS": (0, None),
    "DENSE.DIM": (1, None),
    "DENSE.HIDDEN": (0, None),
    "SETSIM.THRESHOLD": (0, 1),
    "SETSIM.MIN_COSINE": (-1, 1),
    "SETSIM.GEOMETRY_THRESHOLD": (0, None),
    "SOLVER.BATCH_SIZE": (2, None),
    "SOLVER.EPOCHS": (1, None),
    "SOLVER.MAX_STEPS": (0, None),
    "SOLVER.REFERENCE_BATCH": (1, None),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, None),
    "SOLVER.GAMMA": (0, 1),
    "SOLVER.WARMUP_EPOCHS": (0, None),
    "SOLVER.WARMUP_FACTOR": (0, 1),
    "SOLVER.END_LR": (0, None),
    "SOLVER.MAX_SKIPPED": (1, None),
    "CHECKPOINT.STEPS": (0, None),
    "CHECKPOINT.KEEP": (1, None),
    "CHECKPOINT.KEEP_EVERY": (0, None),
    "LOG.PERIOD": (1, None),
}
ABOVE_ZERO = ("SOLVER.BASE_LR", "MOCO.TEMPERATURE", "DENSE.TEMPERATURE", "CHECKPOINT.PERIOD")


def defaults() -> CfgNode:
    """A fresh copy of every option at its default."""
    return C.clone()


def load(path: str | os.PathLike = "", overrides: list[str] | None = None) -> CfgNode:
    """The options of a config file with ``KEY VALUE`` overrides.

    ``path`` is a file, or the name of one that comes with DenseSSL (``moco_v2`` finds
    ``configs/pretrain/moco_v2.yaml``). Raises InputError for a missing file, an unknown key (with
    the nearest one) or a value of another type.
    """
    cfg = defaults()
    if path:
        file = find(path)
        try:
            merge(cfg, CfgNode.load_yaml_with_base(str(file)), str(file))
        except InputError:
            raise
        except Exception as error:  # PyYAML and fvcore raise many kinds
            raise InputError(f"{file} is not a config file: {error}") from None
    overrides = overrides or []
    if len(overrides) % 2:
        raise InputError(f"overrides come as KEY VALUE pairs; '{overrides[-1]}' has no value")
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        nested: dict = {}
        place = nested
        *parents, leaf = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = CfgNode._decode_cfg_value(value)
        merge(cfg, nested, "the command line")
    return cfg


def validate(cfg: CfgNode, world: int = 1) -> None:
    """Raise InputError for a value out of its range, before any work; ``world`` processes.

    What depends on the data (no images, fewer than a batch) is for the image source to say.
    """
    from .backbones import BACKBONES
    from .methods import METHODS
    from .views import RECIPES

    options = flat(cfg)
    choices = CHOICES | {
        "BACKBONE.NAME": tuple(BACKBONES),
        "METHOD.NAME": tuple(METHODS),
        "VIEWS.RECIPE": tuple(RECIPES),
    }
    for name, allowed in choices.items():
        if options[name] not in allowed:
            raise unknown("value", options[name], allowed, where=name)
    for name, (least, most) in RANGES.items():
        value = options[name]
        if not (math.isfinite(value) and least <= value and (most is None or value <= most)):
            upper = "" if most is None else f" and at most {most}"
            raise InputError(f"{name} is {value}; it must be at least {least}{upper}")
    for name in ABOVE_ZERO:
        if not (math.isfinite(options[name]) and options[name] > 0):
            raise InputError(f"{name} is {options[name]}; it must be above 0")
    steps = cfg.SOLVER.STEPS
    if not all(isinstance(n, int) and n > 0 for n in steps) or list(steps) != sorted(set(steps)):
        raise InputError(f"SOLVER.STEPS is {steps}; it must be rising whole epochs, as (120, 160)")
    for name in ("OUTPUT_DIR", "DATA.PATH"):
        if not options[name]:
            raise InputError(f"{name} is empty; give a folder, as in '{name} path/to/folder'")
    _validate_batch(cfg, world)
    side = math.ceil(cfg.VIEWS.SIZE / STRIDE)
    if METHODS[cfg.METHOD.NAME].dense and side < 2:
        raise InputError(
            f"VIEWS.SIZE is {cfg.VIEWS.SIZE}: {cfg.BACKBONE.NAME} turns that into one position, "
            f"and {cfg.METHOD.NAME} compares positions; the least is {STRIDE + 1}"
        )


def _validate_batch(cfg: CfgNode, world: int) -> None:
    batch, group = cfg.SOLVER.BATCH_SIZE, cfg.BACKBONE.GROUP_SIZE
    if batch % world:
        raise InputError(
            f"SOLVER.BATCH_SIZE is {batch}, which {world} processes cannot share equally; "
            f"nearest: {around(batch, world)}"
        )
    if cfg.BACKBONE.NORM == "split" and batch // world > group and (batch // world) % group:
        raise InputError(
            f"SOLVER.BATCH_SIZE is {batch}, so {batch // world} images a process: not a multiple "
            f"of BACKBONE.GROUP_SIZE = {group}; nearest batch: {around(batch, world * group)}"
        )


def normalisation_groups(cfg: CfgNode, world: int) -> int:
    """How many groups of a global batch the backbone normalises apart, on ``world`` processes."""
    if cfg.BACKBONE.NORM == "SyncBN":
        return 1
    if cfg.BACKBONE.NORM == "BN":
        return world
    return world * max(cfg.SOLVER.BATCH_SIZE // world // cfg.BACKBONE.GROUP_SIZE, 1)


def around(value: int, step: int) -> str:
    """The multiples of ``step`` next to ``value``, in words: '224 or 256'."""
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"


def find(path: str | os.PathLike) -> Path:
    """A config by path, or by the name of one in ``configs/pretrain``."""
    if Path(path).is_file():
        return Path(path)
    known = {file.stem: file for file in (configs.FOLDER / "pretrain").glob("**/*.yaml")}
    if str(path) in known:
        return known[str(path)]
    raise unknown("config (no such file, and no built-in one)", str(path), known)


def merge(cfg: CfgNode, values: dict, where: str, prefix: str = "") -> None:
    """Put ``values`` into ``cfg``; an unknown key or a wrong type is an InputError."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in cfg:
            known = option_names(cfg, prefix)
            everywhere = option_names(defaults())
            tail = [full for full in everywhere if full.split(".")[-1] == str(key).split(".")[-1]]
            raise unknown("option", name, tail or known, where)
        if isinstance(cfg[key], CfgNode):
            if not isinstance(value, dict):
                raise InputError(f"{name} in {where} is a group of options, not '{value}'")
            merge(cfg[key], value, where, f"{name}.")
        else:
            cfg[key] = _as_type_of(cfg[key], value, name, where)


def option_names(cfg: CfgNode, prefix: str = "") -> list[str]:
    """The dotted names of all options under ``cfg``."""
    return list(flat(cfg, prefix))


def flat(node: dict, prefix: str = "") -> dict[str, Any]:
    """The options of a (nested) config under their dotted names."""
    options = {}
    for key, value in node.items():
        if isinstance(value, dict):
            options.update(flat(value, f"{prefix}{key}."))
        else:
            options[f"{prefix}{key}"] = value
    return options


def _as_type_of(old, value, name: str, where: str):
    kind = type(old)
    if kind is str and isinstance(value, bool):  # YAML reads off, on, yes, no as truth values
        value = "on" if value else "off"
    if kind is not str and isinstance(value, str):  # YAML reads (120, 160) and 1e-4 as text
        value = CfgNode._decode_cfg_value(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is str and not isinstance(value, str | dict | list) and value is not None:
        return str(value)  # a folder called 2007 is still a name
    if type(value) is not kind:
        raise InputError(f"{name} in {where} is '{value}', expected {kind.__name__} (as {old!r})")
    return value
