"""Reading, checking and printing the options of ``densessl pretrain`` (options.py assembles them).

A config file names only what differs (``_BASE_: other.yaml`` inherits); ``KEY VALUE`` pairs on the
command line come last. ``NAME_scenes`` is the twin of a built-in config, small enough for a CPU.
"""

import copy
import io
import math
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from fvcore.common.config import CfgNode

from densessl import configs, decoding
from densessl.configs.presets import Preset, built_in, find
from densessl.core import options
from densessl.core.errors import InputError, unknown
from densessl.core.files import read_text
from densessl.core.options import flat
from densessl.core.remote import Address, is_remote, require_no_secret, required, split
from densessl.core.text import OUR_LOADER, as_written
from densessl.weight_files import timm_networks

from .options import DECLARED, PATCH, STRIDE, TWIN_AT_MOST, TWIN_KEEPS, C

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .methods import Method

TWIN = "_scenes"
WITH_ANY = {"DATA.PATH", "OUTPUT_DIR", "SEED", "BACKBONE.WEIGHTS"}  # go with any other options
# What auto becomes: on GPUs from Ampere on, and on any other device
OF_DEVICE = {"AMP": ("bf16", "off"), "CHANNELS_LAST": ("on", "off")}
FREE = "METHOD.OPTIONS."  # begins the names of options of any type


def defaults() -> CfgNode:
    """A fresh copy of every option at its default."""
    return C.clone()


def load(path: str | os.PathLike = "", overrides: list[str] | None = None) -> CfgNode:
    """The options of a config file with ``KEY VALUE`` (or ``KEY=VALUE``) overrides.

    ``path`` is a file, or the name of one that comes with DenseSSL (``moco_v2`` finds
    ``configs/pretrain/moco_v2.yaml``; ``moco_v2_scenes`` is its twin for the scenes). Raises
    InputError for a missing file, an unknown key (with the nearest one) or a value of another type.
    """
    cfg = defaults()
    name = str(path)
    twin = name.endswith(TWIN) and not Path(path).is_file() and name not in built_in()
    if path:
        _merge_file(cfg, find(name.removesuffix(TWIN) if twin else path))
    if twin:
        vit = cfg.BACKBONE.NAME.startswith("vit")
        _merge_file(cfg, find(configs.FOLDER / "scenes_twin.yaml"))
        for name, most in TWIN_AT_MOST.items():
            group, option = name.split(".")
            cfg[group][option] = min(cfg[group][option], most)
        cfg.BACKBONE.NAME = "vit_tiny" if vit else cfg.BACKBONE.NAME
    words = options.pairs(overrides or [])
    for key, value in zip(words[::2], words[1::2], strict=True):
        read = options.parsed if key.startswith(FREE) else options.bare
        merge(cfg, options.nested({key: read(value)}), "the command line")
    return cfg


class _AsWritten(CfgNode):
    """Config files and their bases, in which an option that is text stays as it is written."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        if configs.is_ours(filename):
            return copy.deepcopy(_ours(filename))
        return super().load_yaml_with_base(filename, allow_unsafe)

    @classmethod
    def _open_cfg(cls, filename: str) -> io.StringIO:
        loader = OUR_LOADER if configs.is_ours(filename) else yaml.SafeLoader
        return io.StringIO(as_written(read_text(filename), _is_text, loader))


def _is_text(keys: tuple[str, ...], _: str) -> bool:
    option = DECLARED.get(".".join(keys))
    return option is not None and str in option.kinds


@cache
def _ours(file: str) -> dict[str, Any]:
    """What a config that comes with DenseSSL holds with its bases: many share a few of them."""
    return super(_AsWritten, _AsWritten).load_yaml_with_base(file)


def _merge_file(cfg: CfgNode, preset: Preset) -> None:
    file = str(preset.file)
    try:
        merge(cfg, preset.options(_AsWritten.load_yaml_with_base(file)), file)
    except InputError:
        raise
    except Exception as error:  # PyYAML and fvcore raise many kinds
        raise InputError(f"{file} is not a config file: {error}") from None


def check(cfg: CfgNode, world: int = 1) -> None:
    """Raise InputError for a value that none of its kind may have; ``world`` processes.

    This part of :func:`validate` needs no torch, so that it is said in a moment.
    """
    options.check(cfg, DECLARED)
    decoding.parse(cfg.DATA.RANGE, "DATA.RANGE")
    _validate_tile(cfg)
    _validate_videos(cfg.DATA)
    _validate_channel_files(cfg.DATA)
    _validate_batch(cfg, world)
    for name in ("SCALE", "LOCAL_SCALE"):
        if value := cfg.VIEWS[name]:
            crop_scale(value, f"VIEWS.{name}")


def check_folders(cfg: CfgNode) -> None:
    """Raise InputError where a run has no images, or no place for what it writes."""
    for name in ("OUTPUT_DIR", "DATA.PATH"):
        if not flat(cfg)[name]:
            raise InputError(f"{name} is empty; give a folder, as in '{name} path/to/folder'")


Location = Path | Address


def data_paths(data: CfgNode) -> list[Location]:
    """The paths and addresses that DATA.PATH names; InputError for one that is not there."""
    paths = split_paths(data.PATH)
    for path in paths if data.SOURCE != "shards" else ():  # these may be a pattern
        with required("DATA.PATH"):
            exists = path.exists()
        if not exists and isinstance(path, Address):
            raise InputError(
                f"DATA.PATH: {path} does not exist: there is no such bucket, or nothing of that "
                "name in it"
            )
        if not exists:
            part = f", one of the {len(paths)} of '{data.PATH}'," if len(paths) > 1 else ""
            raise InputError(f"DATA.PATH: {path}{part} does not exist (looked from {Path.cwd()})")
    return paths


def split_paths(text: str, where: str = "DATA.PATH") -> list[Location]:
    """One path or address, or several with ':' between them where the whole text is no existing
    path. InputError, which names the option ``where``, for an address that none can be."""
    whole = Path(text).expanduser()
    if os.pathsep not in text or os.path.exists(whole):
        return [whole]
    require_no_secret(text, where)
    return [
        Address.parse(part, where) if is_remote(part) else Path(part).expanduser()
        for part in split(text)
    ]


def crop_scale(value: tuple, where: str) -> tuple[float, float]:
    """A least and a largest share of an image's area; InputError unless it is within (0, 1]."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    if len(value) != 2 or not numbers or not 0 < value[0] <= value[1] <= 1:
        raise InputError(
            f"{where} is {value}; it must be the least and the largest share of the image's area, "
            "as (0.2, 1.0)"
        )
    return float(value[0]), float(value[1])


def validate(cfg: CfgNode, world: int = 1) -> None:
    """Raise InputError for what :func:`check` refuses, and for options that do not go together.

    Before any work. What depends on the data (no images, fewer than a batch) is for the image
    source to say.
    """
    check(cfg, world)
    from .methods import find_method
    from .views import RECIPES, build_recipes, find_recipe

    method = find_method(cfg.METHOD.NAME)
    build_recipes(cfg.VIEWS)
    _validate_channels(cfg)
    _validate_clipping(cfg.SOLVER)
    if method.same_flip and not find_recipe(cfg.VIEWS.RECIPE)[1].flip_of_first:
        fitting = [name for name, recipe in RECIPES.items() if recipe[1].flip_of_first]
        raise InputError(
            f"VIEWS.RECIPE is {cfg.VIEWS.RECIPE}, but {cfg.METHOD.NAME} needs one flip for both "
            f"views of an image; allowed: {', '.join(fitting)}"
        )
    check_method(cfg, method)


def _validate_clipping(solver: CfgNode) -> None:
    if solver.CLIP_EACH and solver.CLIP_NORM:
        raise InputError(
            f"SOLVER.CLIP_NORM is {solver.CLIP_NORM:g}; allowed with SOLVER.CLIP_EACH "
            f"{solver.CLIP_EACH:g}: 0, as gradients are clipped each by itself or all together"
        )


def _validate_channels(cfg: CfgNode) -> None:
    from .views.normalization import NORMALIZATION, given_normalization

    data = cfg.DATA
    if given_normalization(data) == NORMALIZATION and not data.CHANNEL_FILES:
        return
    options = f"DATA.CHANNELS {data.CHANNELS} and DATA.MEAN '{data.MEAN}'"
    if data.CHANNEL_FILES:
        options = f"DATA.CHANNEL_FILES {data.CHANNEL_FILES}"
    for group in ("KNN", "PROBE"):
        if cfg[group].PERIOD:
            raise InputError(
                f"{group}.PERIOD is {cfg[group].PERIOD:g}; allowed with {options}: 0, as it reads "
                "RGB images, normalised as ImageNet's are"
            )


def validate_loaded(
    cfg: CfgNode, path: str | os.PathLike, overrides: list[str], world: int = 1
) -> None:
    """:func:`validate` for what :func:`load` made of ``path`` and ``overrides``.

    The options of a config that comes with DenseSSL go together, as do those of its twin (with
    :func:`sizes_kept`), and need no import of torch (seconds) to be checked.
    """
    name, words = str(path).removesuffix(TWIN), options.pairs(overrides)
    known = name in built_in() and not os.path.isfile(path)
    if known and not {*words[::2]} <= WITH_ANY:
        kept = sizes_kept(name).items() if name != str(path) else ()
        together = {(key, str(value)) for key, value in kept}
        given = zip(words[::2], words[1::2], strict=True)
        known = {pair for pair in given if pair[0] not in WITH_ANY} <= together
    (check if known else validate)(cfg, world)


def sizes_kept(name: str) -> dict[str, Any]:
    """The options of a built-in config that its twin must keep for a detector to take its weights,
    and their values."""
    full = flat(load(name))
    kept = [] if full["BACKBONE.NAME"].startswith("vit") else ["BACKBONE.NAME"]
    kept += [key for key, method in TWIN_KEEPS.items() if method == full["METHOD.NAME"]]
    return {key: full[key] for key in kept}


def as_asked(options: "Mapping[str, Any]", asked: "Mapping[str, Any]") -> dict[str, Any]:
    """The flat ``options`` of a run with ``auto`` where ``asked`` leaves a value to the device."""
    left = {
        name: "auto"
        for name, values in OF_DEVICE.items()
        if asked.get(name) == "auto" and options.get(name) in values
    }
    return {**options, **left}


def check_method(cfg: CfgNode, method: "type[Method]") -> None:
    """Raise InputError for options of a method, its views and its backbone that do not agree."""
    from .backbones import strides_of

    strides = strides_of(cfg.BACKBONE.NAME)
    stride = [*strides.values()][-1] if strides else STRIDE
    if method.dense and math.ceil(cfg.VIEWS.SIZE / stride) < 2:
        raise InputError(
            f"VIEWS.SIZE is {cfg.VIEWS.SIZE}: {cfg.BACKBONE.NAME} turns that into one position, "
            f"and {cfg.METHOD.NAME} compares positions; the least is {stride + 1}"
        )
    if strides:
        _validate_levels(cfg, method, strides)
    if cfg.VIEWS.LOCAL_CROPS and not method.multi_crop:
        raise InputError(
            f"VIEWS.LOCAL_CROPS is {cfg.VIEWS.LOCAL_CROPS}, but {cfg.METHOD.NAME} takes two views "
            "an image; it must be 0"
        )
    if cfg.SOLVER.ACCUMULATE > 1 and not method.accumulates:
        from .methods import METHODS

        fitting = ", ".join(name for name, other in METHODS.items() if other.accumulates)
        raise InputError(
            f"SOLVER.ACCUMULATE is {cfg.SOLVER.ACCUMULATE}, but {cfg.METHOD.NAME} needs all images "
            "of a step at once: its loss compares them, or its class does not declare accumulates; "
            f"it must be 1. Steps in parts go with {fitting}"
        )
    method.check(cfg)


def _validate_levels(cfg: CfgNode, method: "type[Method]", strides: "Mapping[str, int]") -> None:
    from .backbones.resnet import STRIDES

    name = cfg.BACKBONE.NAME
    if method.pyramid and strides != STRIDES:
        from .methods import METHODS

        fitting = ", ".join(each for each, other in METHODS.items() if not other.pyramid)
        has = ", ".join(f"{level} ({stride})" for level, stride in strides.items())
        raise InputError(
            f"BACKBONE.NAME is {name}, but {cfg.METHOD.NAME} needs levels at the strides 4, 8, 16 "
            f"and 32, and this one has {has}; it goes with {fitting}"
        )
    sizes = {"SIZE": cfg.VIEWS.SIZE}
    if cfg.VIEWS.LOCAL_CROPS:
        sizes["LOCAL_SIZE"] = cfg.VIEWS.LOCAL_SIZE
    for option, size in sizes.items():
        if timm_networks.is_timm(name):
            timm_networks.check_size(name, size, f"VIEWS.{option}")
        elif name.startswith("vit") and size % PATCH:
            raise InputError(
                f"VIEWS.{option} is {size}; {name} cuts views into patches of {PATCH} pixels; "
                f"nearest: {around(size, PATCH)}"
            )


def _validate_tile(cfg: CfgNode) -> None:
    """A tile is no smaller than a view, which would be enlarged, and is read at full scale."""
    tile, least = cfg.DATA.TILE, cfg.VIEWS.SIZE
    most = math.isqrt(cfg.DATA.MAX_PIXELS)  # 0: no limit
    if tile and (tile < least or (most and tile > most)):
        to = f" to {most}, the root of DATA.MAX_PIXELS" if most else " or more"
        raise InputError(
            f"DATA.TILE is {tile}; allowed: 0 for whole images, or {least} (VIEWS.SIZE){to}"
        )


def _validate_channel_files(data: CfgNode) -> None:
    words = decoding.parse_channel_files(data.CHANNEL_FILES, "DATA.CHANNEL_FILES")
    if not words:
        return
    if len(words) != data.CHANNELS:
        raise InputError(
            f"DATA.CHANNEL_FILES is '{data.CHANNEL_FILES}', of {len(words)} channels, and "
            f"DATA.CHANNELS is {data.CHANNELS}; allowed: the same number"
        )
    for name, none in (("FRAME_RATE", 0), ("TRUNCATED", False)):
        if data[name]:
            raise InputError(
                f"DATA.{name} is {data[name]}; allowed with DATA.CHANNEL_FILES: {none}"
            )


def _validate_videos(data: CfgNode) -> None:
    if data.FRAME_RATE and data.CHANNELS != decoding.COLOURS:
        raise InputError(
            f"DATA.FRAME_RATE is {data.FRAME_RATE:g}; allowed with DATA.CHANNELS {data.CHANNELS}: "
            "0, as frames of videos are pictures in colour"
        )


def _validate_batch(cfg: CfgNode, world: int) -> None:
    batch, parts, group = cfg.SOLVER.BATCH_SIZE, cfg.SOLVER.ACCUMULATE, cfg.BACKBONE.GROUP_SIZE
    if batch % world:
        raise InputError(
            f"SOLVER.BATCH_SIZE is {batch}, which {world} processes cannot share equally; "
            f"nearest: {around(batch, world)}"
        )
    own = batch // world
    if parts > 1 and (own % parts or own // parts < 2):
        allowed = [n for n in range(1, own // 2 + 1) if own % n == 0] or [1]
        raise InputError(
            f"SOLVER.ACCUMULATE is {parts}, but SOLVER.BATCH_SIZE {batch} is {own} images a "
            "process, which must be as many equal parts of 2 images or more; allowed: "
            f"{', '.join(map(str, allowed))}"
        )
    share, what = own // parts, "process" if parts == 1 else "process and part"
    if cfg.BACKBONE.NORM == "split" and share > group and share % group:
        raise InputError(
            f"SOLVER.BATCH_SIZE is {batch}, so {share} images a {what}: not a multiple of "
            f"BACKBONE.GROUP_SIZE = {group}; nearest batch: {around(batch, world * parts * group)}"
        )


def normalisation_groups(cfg: CfgNode, world: int) -> int:
    """How many groups of the images that are computed together (the global batch, or a part of it)
    the backbone normalises apart, on ``world`` processes."""
    if cfg.BACKBONE.NORM == "SyncBN":
        return 1
    if cfg.BACKBONE.NORM == "BN":
        return world
    images = cfg.SOLVER.BATCH_SIZE // world // cfg.SOLVER.ACCUMULATE
    return world * max(images // cfg.BACKBONE.GROUP_SIZE, 1)


def around(value: int, step: int) -> str:
    """The multiples of ``step`` next to ``value``, in words: '224 or 256'."""
    below = value // step * step
    return f"{below} or {below + step}" if below else f"{step}"


def merge(cfg: CfgNode, values: dict, where: str, prefix: str = "") -> None:
    """Put ``values`` into ``cfg``; an unknown key or a wrong type is an InputError."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if prefix.startswith(FREE):
            _free(cfg, key, value)
        elif key not in cfg:
            name = f"{prefix}{next(iter(flat({key: value})), key)}"
            known, everywhere = option_names(cfg, prefix), option_names(defaults())
            tail = [full for full in everywhere if full.split(".")[-1] == name.split(".")[-1]]
            raise unknown("option", name, tail or known, where, known=everywhere)
        elif isinstance(cfg[key], CfgNode):
            if not isinstance(value, dict):
                raise InputError(f"{name} in {where} is a group of options, not '{value}'")
            merge(cfg[key], value, where, f"{name}.")
        else:
            if name == "DATA.RANGE" and isinstance(value, list | tuple):  # [0, 4095] in YAML
                value = ",".join(map(str, value))
            cfg[key] = DECLARED[name].typed(value, name, where)


def _free(cfg: CfgNode, key: str, value: Any) -> None:
    """Put a value of any type under METHOD.OPTIONS; groups of them are merged."""
    if not isinstance(value, dict):
        cfg[key] = value
        return
    if not isinstance(cfg.get(key), CfgNode):
        cfg[key] = CfgNode()
    for name, inner in value.items():
        _free(cfg[key], name, inner)


def option_names(cfg: CfgNode, prefix: str = "") -> list[str]:
    """The dotted names of all options under ``cfg``."""
    return list(flat(cfg, prefix))
