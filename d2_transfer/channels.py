"""Images of other than three channels in a protocol: the user's own, read as they are stored."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densessl.core.errors import InputError
from densessl.decoding import UnreadableImage, decode
from densessl.decoding.channels import decode_channels
from densessl.weight_files.channels import COLOURS, repeated
from densessl.weight_files.images import AS_STORED

from .datasets.custom import Custom
from .datasets.layouts import LAYOUTS, are_semantic

if TYPE_CHECKING:
    from .classification.own import OwnImages
    from .dense_probes.own import OwnData

OPTION = "INPUT.CHANNELS"
ALLOWED = "custom_det, custom_mask, custom_keypoint, custom_semseg and custom_cls, on your own data"
FACTS = ("channels", "channel_order", "normalization")  # of a converted file


def of(cfg) -> int:
    """The channels of a settled config's images."""
    return cfg.INPUT.CHANNELS or COLOURS


def stated(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a converted file's facts say of its images, where they are not of three channels."""
    if not facts or facts.get("channels", COLOURS) == COLOURS:
        return {}
    return {name: facts[name] for name in FACTS}


def settle(cfg, weights: Mapping[str, Any]):
    """``cfg`` (frozen) with the channels that INPUT.CHANNELS or the weights name, if not three.

    ``weights``: of :func:`stated`. A Detectron2 config gets the weights' INPUT.FORMAT,
    MODEL.PIXEL_MEAN and MODEL.PIXEL_STD; for a random start its own are repeated. Raises InputError
    where the two do not agree, and for a protocol whose images are pictures in colour.
    """
    of_weights = weights.get("channels", COLOURS)
    channels = cfg.INPUT.CHANNELS or of_weights
    if of_weights not in (COLOURS, channels):
        raise InputError(
            f"{OPTION} is {channels}, but the weights take images of {of_weights} channels"
        )
    if channels == COLOURS:
        return cfg
    _require_own(cfg, channels)
    made = cfg.clone()
    made.defrost()
    made.INPUT.CHANNELS = channels
    if "TASK" not in cfg:
        made.INPUT.FORMAT = AS_STORED
        for key in ("PIXEL_MEAN", "PIXEL_STD"):
            values = list(made.MODEL[key])
            if len(values) == COLOURS:
                normal = weights.get("normalization", {})
                made.MODEL[key] = normal.get(key.lower()) or repeated(values, channels)
            elif len(values) != channels:
                raise InputError(f"MODEL.{key} is {values}; allowed: {channels} numbers ({OPTION})")
    if cfg.is_frozen():
        made.freeze()
    return made


def _require_own(cfg, channels: int) -> None:
    sets, reads = cfg.DATASETS, "this protocol"
    if "TASK" not in cfg:
        known = [name for name in (*sets.TRAIN, *sets.TEST) if name in LAYOUTS]
        own = not (known or are_semantic(sets.TRAIN) or cfg.LAZY.CONFIG)
        reads, pictures = ", ".join(known) or reads, {"VIS_PERIOD": cfg.VIS_PERIOD}
    else:
        own = bool(sets.CUSTOM) if "CUSTOM" in sets else sets.NAME == "own"
        pictures = {"TEST.PREDICTIONS": cfg.TEST.get("PREDICTIONS", 0)}
    if not own:
        raise InputError(
            f"the weights or {OPTION} say images of {channels} channels, and {reads} has pictures "
            f"in colour; allowed: {ALLOWED}"
        )
    for key, value in pictures.items():
        if value:
            raise InputError(
                f"{key} is {value}; allowed with images of {channels} channels, which are no "
                "pictures: 0"
            )


def require_readable(cfg, data: "Path | Custom | OwnData | OwnImages | None") -> None:
    """InputError, with the reason, where the first of the user's own images cannot be read."""
    channels = of(cfg)
    for file in _first_of(data):
        try:
            if channels == COLOURS:
                decode(file, max_pixels=cfg.INPUT.MAX_PIXELS)
            else:
                decode_channels(file, channels, max_pixels=cfg.INPUT.MAX_PIXELS)
        except UnreadableImage as error:
            hint = f"{OPTION} (now {channels}) says how many channels the images have"
            raise InputError(f"{file} cannot be read: {error}; {hint}") from None


def _first_of(data: Any) -> list[str]:
    """The first training image, and the first that is evaluated where that is known here."""
    if isinstance(data, Custom):
        return list(data.sampled[:1])
    if data is None or isinstance(data, Path):
        return []
    splits = (data.train, data.val)
    return [str(s.images[0]) if hasattr(s, "images") else s.path(0) for s in splits]
