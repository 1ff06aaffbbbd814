"""The user's own data: which files and folders a protocol takes on the command line."""

from collections.abc import Mapping
from dataclasses import dataclass

from densessl.core.errors import InputError


@dataclass(frozen=True)
class Wanted:
    """Names of options, with underscores."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


COCO = Wanted(("train_json", "train_images", "val_json", "val_images"))
MASKS = Wanted(
    ("train_images", "train_masks", "val_images", "val_masks"),
    ("classes", "ignore", "image_suffix", "mask_suffix"),
)
BY_PROTOCOL = {"custom_det": COCO, "custom_mask": COCO, "custom_semseg": MASKS}
ALL = tuple(dict.fromkeys((*COCO.needed, *MASKS.needed, *MASKS.optional)))
PLACES = (*COCO.needed, *MASKS.needed, "classes")  # of these, what is a path


def add_flags(parser) -> None:
    """The options of all protocols that read the user's own data."""
    for name in ("train", "val"):
        parser.add_argument(f"--{name}-json", metavar="FILE", help=f"custom_*: {name} annotations")
        parser.add_argument(f"--{name}-images", metavar="DIR", help=f"custom_*: {name} images")
        parser.add_argument(f"--{name}-masks", metavar="DIR", help=f"custom_semseg: {name} labels")
    parser.add_argument("--classes", metavar="FILE", help="custom_semseg: their names, one a line")
    parser.add_argument(
        "--ignore",
        type=int,
        metavar="N",
        help="custom_semseg: the value of pixels without a class (255); 0: classes count from 1",
    )
    for name in ("image", "mask"):
        parser.add_argument(
            f"--{name}-suffix", metavar="END", help=f"custom_semseg: {name} files are NAME + END"
        )


def given(protocol: str, args) -> dict[str, str]:
    """The options that were given; InputError for one that is missing, or that is not for it."""
    wanted = BY_PROTOCOL.get(protocol, Wanted())
    found = {name: getattr(args, name) for name in ALL if getattr(args, name) is not None}
    for name in wanted.needed:
        if not found.get(name):
            raise InputError(f"{_flag(name)} is missing: {protocol} reads your own data")
    for name, value in found.items():
        if name not in (*wanted.needed, *wanted.optional):
            why = "takes none" if wanted.needed else "reads its own data sets"
            raise InputError(f"{_flag(name)} is '{value}', but {protocol} {why}")
    return found


def of(protocol: str, args):
    """The data that the options name, read and checked whole; None for other protocols."""
    found = given(protocol, args)
    return read(protocol, found) if found else None


def read(protocol: str, found: Mapping[str, str]):
    """A :class:`datasets.custom.Custom`, or :class:`dense_probes.own.OwnData`; InputError."""
    if BY_PROTOCOL[protocol] is MASKS:
        from . import dense_probes

        return dense_probes.read_own(**found)
    from .datasets import custom

    return custom.read(**found, need_masks=protocol == "custom_mask")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
