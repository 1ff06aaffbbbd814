"""How a network wants its images, and where its stride is: as the file says, or assumed.

Values are of images in [0, 1] here; files and people also give them of 0–255.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from densessl.core.errors import InputError

from . import origin, timm_networks
from .channels import COLOURS
from .layouts import KeyLayout
from .origin import Origin

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "RGB"}
# Detectron2's own model zoo: Caffe's images and, in most of it, MSRA's networks.
MODEL_ZOO = "Detectron2 Model Zoo"
CAFFE = {
    "mean": [value / 255 for value in (103.53, 116.28, 123.675)],
    "std": [1 / 255] * 3,
    "channel_order": "BGR",
}
CAFFES_STRIDE = "the stride in the 1x1 convolution of layer2 to layer4's first block"
ZOO_NOTE = (
    f"by Detectron2's model zoo: taken are its defaults, BGR images and {CAFFES_STRIDE} "
    "(torchvision: in the 3x3)"
)
DETECTOR_NOTE = (
    "the file does not say how its images were normalised: taken are RGB and ImageNet's mean and "
    "deviation, and the stride in the 3x3 convolution, as by torchvision; --mean, --std, "
    "--channel-order and --stride-in-1x1 say otherwise"
)
ORDERS = ("RGB", "BGR")
AS_STORED = "as stored"  # the order of channels that are no colours: other than three


@dataclass(frozen=True)
class ImageFacts:
    """``mean``, ``std`` and ``channel_order``, the place of the stride, and who says so.

    ``by`` is empty where nobody does, and ImageNet's were taken.
    """

    normalization: dict[str, Any]
    stride_in_1x1: bool = False
    by: str = ""


def read(
    checkpoint: dict,
    facts: dict[str, Any],
    layout: KeyLayout,
    found: Origin,
    notes: list[str],
    channels: int = COLOURS,
) -> ImageFacts:
    """What the file says of its images, or is known of its kind; else ImageNet's.

    ``facts``: of our own conversion; ``notes`` gets a line where something had to be assumed.
    ``channels``: that the network takes.
    """
    if isinstance(checkpoint.get("normalization"), dict):
        normal = IMAGENET | checkpoint["normalization"]
        return ImageFacts(_checked(normal, channels), by="the file")
    if facts:
        scaled = {name[6:]: [v / 255 for v in vs] for name, vs in facts["normalization"].items()}
        normal = _checked(IMAGENET | scaled | {"channel_order": facts["channel_order"]}, channels)
        by = facts.get("images_by", "the file")
        return ImageFacts(normal, bool(facts.get("stride_in_1x1")), by)
    if channels != COLOURS:
        notes.append(
            f"the file does not say how its images of {channels} channels were normalised: taken "
            "are values of 0 to 1 as they are; --mean and --std say otherwise"
        )
        normal = {"mean": [0.0] * channels, "std": [1.0] * channels, "channel_order": AS_STORED}
        return ImageFacts(normal)
    for says in (_detectron2s_buffers, _openmmlabs_config, _configurations, _huggingfaces):
        if images := says(checkpoint, layout, found, notes):
            return images
    caffe = next((w for w, _ in found.words if re.search(r"resnet\d+_(caffe|msra)", w.lower())), "")
    if checkpoint.get("__author__") == MODEL_ZOO or layout.names == "caffe2" or caffe:
        notes.append(f"by its name, {caffe}: BGR images, {CAFFES_STRIDE}" if caffe else ZOO_NOTE)
        return ImageFacts(dict(CAFFE), True, "its kind")
    if images := _timms_registry(checkpoint, found):
        return images
    if layout.names == "detector":
        notes.append(DETECTOR_NOTE)
    return ImageFacts(dict(IMAGENET))


def given(
    images: ImageFacts,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channel_order: str | None,
    stride_in_1x1: bool | None,
    notes: list[str],
) -> ImageFacts:
    """The same with what people say (``--mean`` and so on), which counts; ``notes`` says over what.

    ``mean`` and ``std`` are of 0–1 or of 0–255 values. Raises InputError for what can be neither.
    """
    given = {"mean": mean, "std": std}
    channels = len(images.normalization["mean"])
    unit = _unit(mean, std, channels)
    normal: dict[str, Any] = {
        name: [float(value) / unit for value in values] for name, values in given.items() if values
    }
    if channel_order:
        if channels != COLOURS:
            raise InputError(
                f"--channel-order is {channel_order}, but the network takes images of {channels} "
                "channels, which are taken as they are stored: leave it out"
            )
        normal["channel_order"] = channel_order
    if not normal and stride_in_1x1 is None:
        return images
    new = replace(
        images,
        normalization=_checked(images.normalization | normal, channels),
        stride_in_1x1=images.stride_in_1x1 if stride_in_1x1 is None else stride_in_1x1,
        by=_source_of(images.by, len(normal)),
    )
    known = images.by or images.stride_in_1x1
    if known and new != replace(images, by=new.by):
        notes.append(f"{images.by or 'the file'} says {words(images)}; the command line counts")
    return new


def _source_of(by: str, count: int) -> str:
    """Who says how images are normalised, after people have said so many of its three parts."""
    if count in (0, 3):
        return "the command line" if count else by
    return f"the command line, the rest {f'by {by}' if by else 'assumed'}"


def source(by: str) -> str:
    """Who says how images are normalised (``ImageFacts.by``), as it stands behind the numbers."""
    return f"by {by}" if by else "assumed: the file does not say"


def words_of(facts: dict[str, Any]) -> str:
    """What a converted file's facts say of the images that its network takes, and of its stride."""
    normal = facts["normalization"]
    mean, std = (" ".join(f"{v:.6g}" for v in normal[f"pixel_{k}"]) for k in ("mean", "std"))
    order = _order(facts["channel_order"], normal["pixel_mean"])
    text = f"{order}, mean {mean}, deviation {std} (of 0-255)"
    if facts.get("depth", 0) >= 50:
        text += f", stride in the {'1x1' if facts['stride_in_1x1'] else '3x3'}"
    return f"{text}, {source(facts.get('images_by', 'the file'))}"


def words(images: ImageFacts) -> str:
    """'RGB, mean 123.675 116.28 103.53, deviation … (of 0-255)', and Caffe's stride."""
    normal = images.normalization
    mean, std = (" ".join(f"{255 * v:.6g}" for v in normal[k]) for k in ("mean", "std"))
    stride = ", stride in the 1x1" if images.stride_in_1x1 else ""
    order = _order(normal["channel_order"], normal["mean"])
    return f"{order}, mean {mean}, deviation {std} (of 0-255){stride}"


def _order(order: str, mean: Sequence[float]) -> str:
    """'BGR', or '4 channels as stored'."""
    return order if order != AS_STORED else f"{len(mean)} channels {order}"


# What files say -----------------------------------------------------------------------------------


def _detectron2s_buffers(checkpoint: dict, layout: KeyLayout, found: Origin, notes: list[str]):
    """``pixel_mean`` and ``pixel_std`` among the tensors: of 0–255, without the channels' order."""
    state: Any = checkpoint
    for key in layout.container:
        state = state.get(key, {}) if isinstance(state, dict) else {}
    mean, std = (_numbers(_find(state, f"pixel_{name}")) for name in ("mean", "std"))
    if mean is None or std is None:
        return None
    unit = 1.0 if max(mean) <= 1 and max(std) < 1 else 255.0
    caffe = all(abs(255 * value / unit - 1) < 1e-6 for value in std)
    order = "BGR" if mean[0] < mean[2] else "RGB"
    says = "by its pixel_mean, " if mean[0] != mean[2] else "for the file does not say another, "
    notes.append(
        f"{says}the images are {order}; by its pixel_std, the stride is in the "
        f"{'1x1 convolution, as in MSRA' if caffe else '3x3 convolution, as in torchvision'}'s "
        "networks; --channel-order and --stride-in-1x1 say otherwise"
    )
    normal = {"mean": [m / unit for m in mean], "std": [s / unit for s in std]}
    return ImageFacts(_checked(normal | {"channel_order": order}), caffe, "the file's pixel_mean")


def _openmmlabs_config(checkpoint: dict, layout: KeyLayout, found: Origin, notes: list[str]):
    """``img_norm_cfg`` or ``data_preprocessor`` of mmcv's and mmengine's config; its ``style``."""
    text = origin.config_text(checkpoint)
    caffe = bool(re.search(r"\bstyle\s*=\s*'caffe'", text))
    block = re.search(r"\b(img_norm_cfg|data_preprocessor)\s*=\s*dict\(([^()]*)\)", text)
    settings = block[2] if block else ""
    mean, std = (
        re.search(rf"\b{name}\s*=\s*[\[(]([-\d., ]+)[\])]", settings) for name in ("mean", "std")
    )
    if mean is None or std is None:
        return ImageFacts(dict(CAFFE), True, "the file's config (style 'caffe')") if caffe else None
    rgb = re.search(r"\b(?:to_rgb|bgr_to_rgb)\s*=\s*(True|False)", settings)
    order = "BGR" if rgb and rgb[1] == "False" else "RGB"
    normal = {
        name: [float(value) / 255 for value in re.findall(r"[-\d.]+", each[1])]
        for name, each in (("mean", mean), ("std", std))
    }
    return ImageFacts(_checked(normal | {"channel_order": order}), caffe, "the file's config")


def _configurations(checkpoint: dict, layout: KeyLayout, found: Origin, notes: list[str]):
    """``mean`` and ``std`` of timm's configuration, in the file or in ``config.json`` beside it."""
    for settings, where in found.configurations:
        mean, std = (_numbers(origin.plain(settings.get(name))) for name in ("mean", "std"))
        if mean and std:
            return ImageFacts(_checked(IMAGENET | {"mean": mean, "std": std}), by=where)
    return None


def _huggingfaces(checkpoint: dict, layout: KeyLayout, found: Origin, notes: list[str]):
    """``preprocessor_config.json``, and the stride of ``config.json``."""
    if layout.names != "huggingface":
        return None
    preprocessor = found.beside.get("preprocessor_config.json", {})
    mean, std = (_numbers(preprocessor.get(f"image_{name}")) for name in ("mean", "std"))
    stride = bool(found.beside.get("config.json", {}).get("downsample_in_bottleneck"))
    if mean and std:
        normal = _checked(IMAGENET | {"mean": mean, "std": std})
        return ImageFacts(normal, stride, "preprocessor_config.json")
    return ImageFacts(dict(IMAGENET), stride)


def _timms_registry(checkpoint: dict, found: Origin):
    """What timm itself says of weights that bear one of its names (``resnet50.a1_in1k``).

    Its training files name a network whose own statistics it trains with.
    """
    timms_training = {"arch", "args", "state_dict", "version"} <= checkpoint.keys()
    for word, where in found.words:
        name = re.sub(r"\.(safetensors|bin|pth|pt)$", "", word.rpartition("/")[2])
        if name.endswith(origin.WEIGHTS):  # an ending, no tag of timm's, which takes long to ask
            continue
        tagged = re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name)
        if not (tagged or timms_training) or not timm_networks.may_know(name.split(".")[0]):
            continue
        from timm.models import get_pretrained_cfg, is_model

        if not is_model(name.split(".")[0]):
            continue
        try:
            settings = get_pretrained_cfg(name)
        except RuntimeError:  # no such tag
            continue
        if settings is not None:
            normal = {"mean": list(settings.mean), "std": list(settings.std)}
            return ImageFacts(_checked(IMAGENET | normal), by=f"timm, of {name} ({where})")
    return None


# Numbers ------------------------------------------------------------------------------------------


def _find(state: Any, name: str) -> Any:
    if not isinstance(state, dict):
        return None
    return state.get(name, state.get(f"module.{name}"))


def _numbers(values: Any) -> list[float] | None:
    """Three numbers of a tensor, an array or a list; None for anything else."""
    if hasattr(values, "tolist"):
        values = values.reshape(-1).tolist() if getattr(values, "ndim", 0) else None
    if not isinstance(values, list | tuple) or len(values) != 3:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    return [float(v) for v in values]


def _unit(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> float:
    """255 where the numbers given are of 0–255 values, 1 where they are of 0–1."""
    for flag, values in (("--mean", mean or ()), ("--std", std or ())):
        if values and len(values) != channels:
            raise InputError(
                f"{flag} is {' '.join(f'{v:g}' for v in values)}; allowed: {channels} numbers, one "
                "of each channel that the network takes"
            )
        for value in values:
            least = 0 if flag == "--mean" else 1e-6
            if not (math.isfinite(value) and least <= value <= 255):
                raise InputError(
                    f"{flag} is {' '.join(f'{v:g}' for v in values)}; allowed: numbers of "
                    "0-1 or of 0-255 images (--mean 0.485 0.456 0.406, or 123.675 116.28 103.53)"
                )
    means, stds = max(mean or [0]), max(std or [0])
    if means > 1 or (means == 0 and (stds > 1 or (not mean and stds == 1))):
        return 255.0
    if stds > 1:
        raise InputError(
            f"--mean is of 0-1 images and --std {' '.join(f'{v:g}' for v in std or ())} of 0-255 "
            "ones; give both of the same"
        )
    return 1.0


def _checked(normalization: dict[str, Any], channels: int = COLOURS) -> dict[str, Any]:
    for name in ("mean", "std"):
        values = normalization[name]
        listed = values if isinstance(values, list | tuple) else ()
        if len(listed) != channels or not all(isinstance(value, int | float) for value in listed):
            raise InputError(
                f"the checkpoint's normalization: {name} is {values}, not {channels} numbers"
            )
    if not all(math.isfinite(v) for v in normalization["mean"]) or not all(
        math.isfinite(v) and v > 0 for v in normalization["std"]
    ):
        raise InputError(
            f"the checkpoint's normalization: mean {normalization['mean']} and std "
            f"{normalization['std']}; allowed: finite numbers, and a std above 0"
        )
    order = normalization["channel_order"]
    orders = ORDERS if channels == COLOURS else (AS_STORED,)
    if order not in orders:
        raise InputError(f"the checkpoint's channel order is {order}; known: {', '.join(orders)}")
    return normalization
