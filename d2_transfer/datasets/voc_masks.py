"""The masks that ``voc_aug`` is made of: VOC2012's own, and those of SBD or a ready folder."""

from dataclasses import dataclass
from pathlib import Path

from densessl.probes import label_images
from densessl.probes.label_images import BadLabels

from .inspection import Inspection, prepare_command

CLASSES = 21  # with background
FOLDER = "VOC2012"
READY = "SegmentationClassAug"  # masks of SBD as PNGs, as others have prepared them
SUBFOLDERS = ("", "dataset", "benchmark_RELEASE/dataset", "benchmark_RELEASE", "VOCaug/dataset")


@dataclass(frozen=True)
class VocMasks:
    """Where the masks of VOC2012's segmentation lie, and its lists."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / FOLDER / "JPEGImages"

    @property
    def masks(self) -> Path:
        return self.root / FOLDER / "SegmentationClass"

    def listed(self, split: str) -> Path:
        return self.root / FOLDER / "ImageSets" / "Segmentation" / f"{split}.txt"


def inspect(root: Path) -> Inspection:
    """What is wrong with VOC2012's own masks and lists."""
    found = Inspection()
    voc = VocMasks(root)
    held = {folder: found.folder(folder) for folder in (voc.images, voc.masks)}
    for split in ("train", "val"):
        names = found.names(voc.listed(split))
        found.images += len(names)
        for folder, ending in ((voc.images, ".jpg"), (voc.masks, ".png")):
            if (there := held[folder]) is not None:
                found.need(voc.listed(split), names, there, folder, ending)
        files = [voc.masks / f"{name}.png" for name in names]
        found.look([file for file in files if file.name in (held[voc.masks] or ())], _mask_problem)
    return found


def _mask_problem(path: Path) -> str | None:
    try:
        label_images.check(path, label_images.read(path), CLASSES)
    except BadLabels as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Sbd:
    """A folder of SBD's masks: as it was published, or (``ready``) PNGs made of it."""

    folder: Path
    ready: bool


def find_sbd(root: Path, given: Path | None = None) -> Sbd | None:
    """Where SBD's masks are: below ``given`` (``--sbd``), or else where people put them."""
    for base in [given] if given else [root, root / FOLDER, root / "SBD", root / "sbd"]:
        for below in SUBFOLDERS:
            if (base / below / "cls").is_dir():
                return Sbd(base / below, False)
        for folder in (base / READY, base):
            if folder.name.startswith(READY) and folder.is_dir():
                return Sbd(folder, True)
    return None


def no_sbd(root: Path, given: Path | None = None) -> str:
    """A sentence on its absence."""
    where = str(given) if given else f"{root} or its folders {FOLDER}, SBD"
    return (
        f"neither SBD (benchmark_RELEASE/dataset with cls/*.mat, train.txt, val.txt) nor a folder "
        f"{READY} of PNGs is in {where}; name it: {prepare_command('voc_aug', root)} --sbd DIR"
    )
