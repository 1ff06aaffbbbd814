"""Detectron2's projects: whose options are whose, and the three that protocols can be made of.

PointRend and DeepLab are part of Detectron2's package, without their options in its defaults. What
ViTDet needs are options of ours, since that project has LazyConfigs alone. A config has those of a
project if it names one of them; no other config is any different.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Collection
from pathlib import Path
from typing import Any

from densessl.core import errors, install

from .config import add_vitdet_options

VITDET = "ViTDet"
OPTIONS = {  # how those begin that each project in Detectron2's repository adds
    "PointRend": (
        "MODEL.POINT_HEAD.",
        "MODEL.IMPLICIT_POINTREND.",
        "MODEL.ROI_MASK_HEAD.FC_DIM",
        "MODEL.ROI_MASK_HEAD.IN_FEATURES",
        "MODEL.ROI_MASK_HEAD.NUM_FC",
        "MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION",
        "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON",
        "INPUT.COLOR_AUG_SSD",
    ),
    "DeepLab": (
        "MODEL.SEM_SEG_HEAD.ASPP_",
        "MODEL.SEM_SEG_HEAD.LOSS_TYPE",
        "MODEL.SEM_SEG_HEAD.PROJECT_",
        "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV",
        "MODEL.RESNETS.RES4_DILATION",
        "MODEL.RESNETS.RES5_MULTI_GRID",
        "MODEL.RESNETS.STEM_TYPE",
        "SOLVER.POLY_LR_",
    ),
    VITDET: (
        "INPUT.LSJ.",
        "MODEL.BACKBONE.DROP_PATH",
        "SOLVER.BETAS",
        "SOLVER.LAYER_DECAY",
        "SOLVER.OPTIMIZER",
    ),
    "Panoptic-DeepLab": ("MODEL.PANOPTIC_DEEPLAB.", "MODEL.INS_EMBED_HEAD."),
    "DensePose": ("MODEL.DENSEPOSE_ON", "MODEL.ROI_DENSEPOSE_HEAD."),
    "TensorMask": ("MODEL.TENSOR_MASK.",),
    "TridentNet": ("MODEL.TRIDENT.",),
}
MODULES = {  # of those that are in the package: the module, and what adds the options
    "PointRend": ("point_rend", "add_pointrend_config"),
    "DeepLab": ("deeplab", "add_deeplab_config"),
}
KNOWN = (*MODULES, VITDET)  # of which a config may have options


def of(key: str) -> str:
    """The project of Detectron2 that has such an option; empty: none that is known."""
    return next((name for name, begins in OPTIONS.items() if key.startswith(begins)), "")


def among(keys: Collection[str]) -> tuple[str, ...]:
    """Those of KNOWN that have one of these (dotted) options."""
    found = {of(key) for key in keys}
    return tuple(name for name in KNOWN if name in found)


def with_named(of_files: Collection[str], keys: Collection[str]) -> tuple[str, ...]:
    """Those that a config's files name, and ViTDet where a key of the command line does: its
    options are for every detector."""
    return (*of_files, VITDET) if VITDET in among(keys) and VITDET not in of_files else (*of_files,)


def call(name: str) -> str:
    """What a program of Detectron2's must call for a project's options, as a line of Python."""
    module, function = MODULES[name]
    return f"detectron2.projects.{module}.{function}(cfg)"


def load(name: str, cfg) -> None:
    """Import a project, which registers its models, and add its options to ``cfg``.

    Raises EnvironmentLacks where the installed Detectron2 does not have it.
    """
    if name == VITDET:
        return add_vitdet_options(cfg)
    module, function = MODULES[name]
    # PointRend imports OpenCV for a colour augmentation that nothing here uses.
    lacks_opencv = "cv2" not in sys.modules and importlib.util.find_spec("cv2") is None
    if lacks_opencv:
        sys.modules["cv2"] = types.ModuleType("cv2", "OpenCV is not installed.")
    try:
        add = getattr(importlib.import_module(f"detectron2.projects.{module}"), function)
    except (ImportError, AttributeError) as error:
        raise errors.EnvironmentLacks(
            f"Detectron2's project {name} cannot be imported ({error}); fix it with: "
            f"{install.detectron2()}"
        ) from None
    finally:
        if lacks_opencv:
            del sys.modules["cv2"]
    add(cfg)


def add_options(name: str, cfg, package: Path) -> None:
    """As :func:`load`, the options alone, without importing anything of Detectron2.

    ``package``: its folder, beside which an installation from a checkout has the projects.
    """
    if name == VITDET:
        return add_vitdet_options(cfg)
    module, function = MODULES[name]
    folders = [package / "projects" / module, package.parent / "projects" / name / module]
    file = next((each / "config.py" for each in folders if (each / "config.py").is_file()), None)
    if file is None:
        raise errors.EnvironmentLacks(
            f"Detectron2's project {name} is not in {folders[0]}; fix it with: "
            f"{install.detectron2()}"
        )
    run_alone(file, type(cfg))[function](cfg)


def run_alone(file: Path, node: type) -> dict[str, Any]:
    """The names in a file of Detectron2's defaults, which imports its class of configs alone.

    ``node`` is that class here, so that neither Detectron2 nor torch is imported (seconds).
    """
    held = types.SimpleNamespace(CfgNode=node)
    builtins = vars(importlib.import_module("builtins"))
    names: dict[str, Any] = {
        "__name__": file.stem,
        "__builtins__": builtins | {"__import__": lambda *called: held},
    }
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), names)
    return names


def upgrade(cfg) -> None:
    """Name PointRend's mask head as it is called today, which its first configs do not, and which
    its heads would otherwise change in the config of a trial that has begun."""
    head = cfg.MODEL.ROI_MASK_HEAD
    if "POINT_HEAD_ON" in head and head.NAME == "CoarseMaskHead":
        head.NAME, head.POOLER_TYPE = "PointRendMaskHead", ""
