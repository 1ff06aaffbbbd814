"""A protocol's config for plain Detectron2: ``--print-config --official``."""

from densessl.core import options
from densessl.core.errors import InputError

from . import compat, modeling, projects  # noqa: F401  (modeling registers its heads)
from .config import VITDET, add_options
from .datasets.custom import NAMES as CUSTOM
from .datasets.layouts import are_semantic
from .results import OF_MAIN_ALONE

compat.setup()
from detectron2 import modeling as detectron2s  # noqa: E402
from detectron2.config import get_cfg  # noqa: E402

NO_NUMBER = ("DATALOADER.TIMEOUT", "DATASETS.CUSTOM", "MODEL.CHANNELS_LAST")  # change no number
REGISTRIES = {
    "MODEL.META_ARCHITECTURE": detectron2s.META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": detectron2s.BACKBONE_REGISTRY,
    "MODEL.ROI_HEADS.NAME": detectron2s.ROI_HEADS_REGISTRY,
}


def official_text(cfg) -> str:
    """``cfg`` as YAML that ``get_cfg()`` of 0.5 and of the official main can merge.

    Comments at its top name what the program that loads it must register. Raises InputError, with
    the options, for what Detectron2 cannot express.
    """
    flat = options.flat(cfg)
    named = projects.among(flat)
    with_projects, ours = get_cfg(), get_cfg()
    add_options(ours)
    for name in named:
        projects.load(name, ours)
        if name in projects.MODULES:
            projects.load(name, with_projects)
    plain = options.flat(with_projects)
    defaults = options.flat(ours)
    surplus = flat.keys() - (plain.keys() - OF_MAIN_ALONE.keys())
    lost = [
        key
        for key in sorted(surplus - OF_MAIN_ALONE.keys() - set(NO_NUMBER))
        if flat[key] != defaults[key]
    ]
    if are_semantic(cfg.DATASETS.TRAIN):
        lost = sorted({*lost, "INPUT.SCALE", "INPUT.RATIO_RANGE"})
    if cfg.MODEL.META_ARCHITECTURE == "FCOS":  # its options are ours, whatever their values
        lost = sorted({*lost, "MODEL.META_ARCHITECTURE"})
    if cfg.MODEL.BACKBONE.NAME == VITDET:
        lost = sorted({*lost, "MODEL.BACKBONE.NAME"})
    if lost:
        raise InputError(
            "--official: plain Detectron2 has nothing for "
            f"{', '.join(f'{key} {flat[key]!r}' for key in lost)}"
        )
    remarks = [
        f"get_cfg() lacks options of {name}: {projects.call(name)} first"
        for name in named
        if name in projects.MODULES
    ]
    remarks += [
        f"{key}: '{flat[key]}' is not in Detectron2; what loads this must register it"
        for key, registry in REGISTRIES.items()
        if not registry.get(flat[key]).__module__.startswith("detectron2.")
    ]
    remarks += [
        f"DATASETS: '{name}' is not in Detectron2; register it with register_coco_instances"
        for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
        if name in CUSTOM
    ]
    kept = cfg.clone()
    kept.defrost()
    for key in surplus:
        if flat[key] == OF_MAIN_ALONE.get(key, flat[key]):
            _remove(kept, key)
        else:
            remarks.append(f"{key}: 0.5 of Detectron2 does not have it")
    return "".join(f"# {remark}\n" for remark in remarks) + kept.dump()


def _remove(cfg, key: str) -> None:
    """With the nodes that are left empty."""
    head, _, rest = key.partition(".")
    if rest:
        _remove(cfg[head], rest)
    if not rest or not cfg[head]:
        del cfg[head]
