"""Methods by name, for a loop of one's own: no config, options as keywords."""

import fnmatch
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from .core.errors import InputError, unknown
from .core.options import as_keyword
from .pretrain import config
from .pretrain.backbones.given import as_backbone
from .pretrain.methods import METHODS, Method, find_method
from .pretrain.methods.base import built_on
from .pretrain.options import BACKBONES, DECLARED
from .weight_files.timm_networks import is_timm

# Options that methods read, beside those at the top of their files
BESIDE = ("SEED", "SOLVER.BATCH_SIZE", "VIEWS.", "BACKBONE.")


def list_methods(filter: str = "*") -> list[str]:
    """The names of methods that fit a pattern, sorted.

    Example: ``list_methods("*simsiam") == ["dense_simsiam", "setsim_simsiam", "simsiam"]``
    """
    return sorted(fnmatch.filter(METHODS, filter))


def create_method(
    name: str,
    backbone: str | nn.Module = "resnet50",
    *,
    steps: int | None = None,
    steps_per_epoch: int | None = None,
    **options: Any,
) -> Method:
    """A method, ready for its first step: ``method(views)["loss"]``.

    See :class:`densessl.pretrain.methods.Method` for the loop around it. ``method.backbone`` is
    what is pretrained.

    Args:
        name: of :func:`list_methods`; or ``path/to/file.py:Class``; or a built-in config's
            (``setsim_released``), whose options are then the defaults.
        backbone: a name (``resnet50``, ``timm/convnext_tiny``), or a module: torchvision's ResNet,
            timm's of ``features_only``, one of :func:`densessl.load_backbone`, your own. Its
            weights are trained in place.
        steps: of the run: needed by methods with a schedule of their own (BYOL's momentum, DINO's
            temperature).
        steps_per_epoch: needed by those whose schedule is one of epochs.
        options: those of the method, in small letters without their group where that is clear
            (``queue=65536`` for MOCO.QUEUE), else with it (``dense_dim=128``); those of
            ``BACKBONE`` and ``VIEWS``, and ``seed``, as ``views_size=96``.

    Raises:
        InputError: for an unknown method or option (with the nearest one), a value that cannot be,
            options that do not go together, and a backbone that the method cannot use.

    Example::

        network = torchvision.models.resnet50()
        method = densessl.create_method("setsim", backbone=network, queue=4096)
    """
    where = f"create_method('{name}')"
    cfg = config.defaults()
    if name not in METHODS and name in config.built_in():
        cfg = config.load(name)
    else:
        DECLARED["METHOD.NAME"].check(name, "name", where)
        cfg.METHOD.NAME = name
    kind = find_method(cfg.METHOD.NAME)
    given = {_option(keyword, kind, where): (keyword, value) for keyword, value in options.items()}
    for option, (keyword, value) in given.items():
        declared = DECLARED[option]
        value = declared.typed(value, keyword, where)
        declared.check(value, keyword, where)
        group, _, leaf = option.rpartition(".")
        (cfg[group] if group else cfg)[leaf] = value
    lengths = {"steps": steps, "steps_per_epoch": steps_per_epoch}
    for length in kind.schedules:
        if lengths[length] is None:
            raise InputError(f"{where} needs {length}: this method follows a schedule")
    for length, value in lengths.items():
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise InputError(
                f"{length} in {where} is {value}; it must be a whole number, at least 1"
            )
    method = _built(cfg, kind, backbone, given, where)
    method.steps, method.steps_per_epoch = steps or 1, steps_per_epoch or steps or 1
    method.before_step(0)
    return method


def _built(
    cfg: Any, kind: type[Method], backbone: str | nn.Module, given: Mapping[str, Any], where: str
) -> Method:
    if isinstance(backbone, str):
        DECLARED["BACKBONE.NAME"].check(backbone, "backbone", where)
        cfg.BACKBONE.NAME = backbone
        config.check_method(cfg, kind)
        return kind(cfg)
    if unused := [keyword for option, (keyword, _) in given.items() if "BACKBONE." in option]:
        raise InputError(
            f"{', '.join(unused)} in {where}: a backbone that is given as a module stays as it is; "
            f"give its name instead ({', '.join(BACKBONES)})"
        )
    module = as_backbone(backbone)
    name = getattr(module, "name", "")  # of load_backbone, which may be a ViT
    if name in BACKBONES or is_timm(str(name)):
        cfg.BACKBONE.NAME = name
    config.check_method(cfg, kind)
    with built_on(module):
        return kind(cfg)


def _option(keyword: str, kind: type[Method], where: str) -> str:
    """The option that a keyword means: ``MOCO.QUEUE``; InputError where it means none or two."""
    declared = [name for each in METHODS.values() for name in _at_the_top(each)]
    declared += [name for name in DECLARED if name.startswith(BESIDE)]
    whole = {as_keyword(name): name for name in declared}
    wanted = as_keyword(keyword)
    if wanted in whole:
        return whole[wanted]
    own = [name for each in kind.__mro__ for name in _at_the_top(each)]
    if not kind.dense:  # MoCo's file has those of the dense methods, too
        own = [name for name in own if not name.startswith("DENSE.")]
    leaves: dict[str, list[str]] = {}
    for name in dict.fromkeys(own):
        leaves.setdefault(name.partition(".")[2].lower(), []).append(name)
    found = leaves.get(wanted, [])
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(map(as_keyword, found))
        raise InputError(f"{keyword} in {where} is {' or '.join(found)}; write {names}")
    raise unknown("option", keyword, leaves, where, known=[*leaves, *whole])


def _at_the_top(kind: type) -> Mapping[str, Any]:
    """The options declared in the file of a method's class."""
    return getattr(sys.modules[kind.__module__], "OPTIONS", {})
