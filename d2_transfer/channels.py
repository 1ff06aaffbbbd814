"""Images of other than three channels in a protocol: the user's own, read as they are stored."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from densessl.core.errors import InputError
from densessl.decoding import UnreadableImage, decode, parse, parse_channel_files
from densessl.decoding.channel_files import image_of
from densessl.decoding.channels import decode_channels
from densessl.weight_files.channels import COLOURS, repeated
from densessl.weight_files.images import AS_STORED

from .datasets.custom import Custom
from .datasets.layouts import LAYOUTS, are_semantic

if TYPE_CHECKING:
    from .classification.own import OwnImages
    from .dense_probes.own import OwnData

OPTION = "INPUT.CHANNELS"
Split = TypeVar("Split")  # of classification, or of a dense probe
ALLOWED = "custom_det, custom_mask, custom_keypoint, custom_semseg and custom_cls, on your own data"
FACTS = ("channels", "channel_order", "normalization")  # of a converted file


def of(cfg) -> int:
    """The channels of a settled config's images."""
    return cfg.INPUT.CHANNELS or COLOURS


def words_of(cfg) -> tuple[str, ...]:
    """What the names of an image's files differ in; empty where an image is one file."""
    return parse_channel_files(cfg.INPUT.CHANNEL_FILES, "INPUT.CHANNEL_FILES")


def decoded(images: Split, cfg) -> Split:
    """``images``, which decode their own files, as INPUT of a settled config says."""
    bounds = parse(cfg.INPUT.RANGE, "INPUT.RANGE") if cfg.INPUT.RANGE else None
    return replace(
        images,  # type: ignore[type-var]
        bounds=bounds,
        max_pixels=cfg.INPUT.MAX_PIXELS,
        channels=of(cfg),
        words=words_of(cfg),
    )


def in_files(cfg, own: "Custom | OwnData | OwnImages") -> None:
    """Set, in a config that is not frozen, what ``--channel-files`` said of the user's own data."""
    given = (own.facts or {}).get("channel_files", "")
    if given:
        count = len(parse_channel_files(given, "--channel-files"))
        cfg.INPUT.CHANNEL_FILES, cfg.INPUT.CHANNELS = given, 0 if count == COLOURS else count


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
    files = len(words_of(cfg)) or channels
    if files != channels:
        raise InputError(
            f"--channel-files has {files} words ({cfg.INPUT.CHANNEL_FILES}), and the images are of "
            f"{channels} channels ({OPTION}, or the weights); allowed: {channels}"
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


def require_readable(
    cfg, data: "Path | Custom | OwnData | OwnImages | None", pretrain: Mapping[str, Any]
) -> None:
    """InputError, with the reason, where the first of the user's own images cannot be read;
    ``pretrain``: what the weights say of their pretraining."""
    channels, words = of(cfg), words_of(cfg)
    for path in _first_of(data):
        file = image_of(path, words)
        try:
            if channels == COLOURS:
                decode(file, max_pixels=cfg.INPUT.MAX_PIXELS)
            else:
                decode_channels(file, channels, max_pixels=cfg.INPUT.MAX_PIXELS)
        except UnreadableImage as error:
            hint = f"{OPTION} (now {channels}) says how many channels the images have"
            if pretrain.get("channel_files") and not words:
                hint += f"; the weights' own had --channel-files {pretrain['channel_files']}"
            raise InputError(f"{path} cannot be read: {error}; {hint}") from None


def _first_of(data: Any) -> list[str]:
    """The first training image, and the first that is evaluated where that is known here."""
    if isinstance(data, Custom):
        return list(data.sampled[:1])
    if data is None or isinstance(data, Path):
        return []
    splits = (data.train, data.val)
    return [str(s.images[0]) if hasattr(s, "images") else s.path(0) for s in splits]
