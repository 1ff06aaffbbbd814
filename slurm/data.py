"""Where a pipeline's data sets are: one folder that holds all, or a place named for each.

What is pretrained on may lie beyond a disk (``s3://…``). Such addresses go to ``densessl pretrain``
as they are written.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from densessl.core.errors import InputError, unknown
from densessl.core.remote import Address, is_remote, split
from densessl.d2_transfer.protocols import DENSE, DETECTION, family_of, room

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode

LINKS = "data"  # in the folder of a run: a link to each data set that was named by itself
FOLDERS = {  # the start of a data set's name in Detectron2: its folders
    "voc_2007": ("VOC2007",),
    "voc_2012_aug_semseg": ("VOC2012", "voc_aug"),
    "voc_2012_semseg": ("VOC2012", "voc_aug"),
    "voc_2012": ("VOC2012",),
    "coco": ("coco",),
    "lvis": ("lvis", "coco"),
    "keypoints_coco": ("coco",),
    "cityscapes": ("cityscapes",),
    "ade20k": ("ADEChallengeData2016",),
    "camvid": ("camvid",),
}
OTHER_NAMES = {"camvid": "CamVid"}  # under which the same folder may lie


@dataclass(frozen=True)
class Data:
    """``root`` holds the data sets under their names, but for those that ``named`` has elsewhere.

    ``home`` is where the jobs find them: ``root``, or the folder of links; those beyond a disk only
    pretrainings do, by their addresses.
    """

    root: Path
    home: Path
    named: dict[str, Path | Address] = field(default_factory=dict)

    def actual(self, relative: str) -> Path | Address:
        """Where ``imagenet/train`` is."""
        name, _, rest = relative.partition("/")
        path, other = self.root / name, self.root / OTHER_NAMES.get(name, name)
        if other.exists() and not path.exists():
            path = other
        found = self.named.get(name, path)
        return found / rest if rest else found

    def path(self, reads: str) -> str:
        """The DATA.PATH of a pretraining that reads ``imagenet/train``, an address, or several
        parts of which one is."""
        parts = parts_of(reads)
        if len(parts) > 1:
            return os.pathsep.join(map(self.path, parts))
        if is_remote(reads):
            return reads
        actual = self.actual(reads)
        return str(actual) if isinstance(actual, Address) else str(self.home / reads)

    def require_on_disk(self, relatives: Iterable[str], reader: str) -> None:
        """InputError where one of them is beyond the disk; ``reader``: what needs them."""
        for each in relatives:
            name = each.partition("/")[0]
            if isinstance(found := self.actual(each), Address):
                raise InputError(
                    f"--data {name}={self.named[name]}: {reader} reads {found} from a disk; "
                    "addresses are for what is pretrained on alone"
                )

    def missing(self, relatives: Iterable[str]) -> list[str]:
        """Those that are not there, each with its path; of addresses pretraining says it."""
        wanted = [each for each in dict.fromkeys(relatives) if not is_remote(each)]
        paths = {each: self.actual(each) for each in wanted}
        return [
            f"{each}: {path}"
            for each, path in paths.items()
            if isinstance(path, Path) and not path.exists()
        ]

    def check_names(self, relatives: Iterable[str]) -> None:
        """InputError where a data set was named that no job reads."""
        used = {each.partition("/")[0] for each in relatives}
        for name in self.named:
            if name not in used:
                raise unknown("data set", name, used, "--data")

    def link(self, relatives: Iterable[str]) -> list[Path]:
        """Make the folder of links, where there is to be one; the links that are new."""
        made: list[Path] = []
        if self.home == self.root:
            return made
        self.home.mkdir(parents=True, exist_ok=True)
        for name in {each.partition("/")[0] for each in relatives if not is_remote(each)}:
            path, link = self.actual(name).absolute(), self.home / name
            if isinstance(path, Address):
                continue
            if not path.exists() or (link.is_symlink() and Path(os.readlink(link)) == path):
                continue
            if link.is_symlink():
                link.unlink()
            elif link.exists():
                raise InputError(f"{link} is in the way: the link to {path} goes there")
            link.symlink_to(path)
            made.append(link)
        return made


def parts_of(reads: str) -> list[str]:
    """What a pretraining reads: several parts, where one of them is an address."""
    parts = split(reads)
    return parts if any(map(is_remote, parts)) else [reads]


def parse(words: Sequence[str], folder: Path) -> Data:
    """What ``--data`` says: ``DIR`` for all, ``NAME=DIR`` or ``NAME=s3://…`` for one; InputError.

    What is not said is below DETECTRON2_DATASETS, else ``./datasets``.
    """
    from densessl.d2_transfer.datasets.checks import root_folder

    for word in filter(is_remote, words):
        raise InputError(
            f"--data '{Address.parse(word, '--data')}' is beyond the disk; allowed there: what is "
            "pretrained on, by its name, as imagenet=s3://bucket/imagenet"
        )
    roots = [word for word in words if "=" not in word]
    if len(roots) > 1:
        raise InputError(f"--data has two folders for all data sets: '{roots[0]}', '{roots[1]}'")
    named: dict[str, Path | Address] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if equals and not (name and path):
            raise InputError(f"--data '{word}' is not NAME=DIR, such as imagenet=/data/imagenet")
        if equals and is_remote(path):
            named[name] = Address.parse(path, f"--data {name}")
        elif equals:
            named[name] = Path(path).expanduser().absolute()
    root, _ = root_folder(roots[0] if roots else None)
    return Data(root, folder / LINKS if named else root, named)


def folders_of(cfg: "CfgNode") -> tuple[str, ...]:
    """The folders that a protocol's config reads, below that of the data sets."""
    family = family_of(cfg)
    if family == DENSE:
        return _folders_of_all((cfg.DATASETS.TRAIN, cfg.DATASETS.TEST))
    if family == DETECTION:
        return _folders_of_all((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    from densessl.d2_transfer.classification.small_sets import SETS

    sets = cfg.DATASETS
    if sets.NAME == "folder":
        return tuple(f"{sets.FOLDER}/{split}" for split in (sets.TRAIN, sets.VAL))
    return ("VOC2007", "VOC2012") if sets.NAME == "voc_objects" else (SETS[sets.NAME].folder,)


def check(cfgs: Iterable, home: Path) -> None:
    """What ``densessl transfer`` checks of its data, for all the protocols; InputError."""
    from densessl.d2_transfer import datasets

    families = [(cfg, family_of(cfg)) for cfg in cfgs]
    for cfg, family in families:
        if family != DETECTION:
            room(family).check_data(cfg, home)
    detection = [cfg.DATASETS for cfg, family in families if family == DETECTION]
    names = dict.fromkeys(name for sets in detection for name in (*sets.TRAIN, *sets.TEST))
    datasets.check(names, home)


def _folders_of_all(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(folder for name in names for folder in _folders(name)))


def _folders(name: str) -> tuple[str, ...]:
    """Of the longest start that fits; a data set of one's own has none."""
    fitting = [start for start in FOLDERS if name.startswith(start)]
    return FOLDERS[max(fitting, key=len)] if fitting else ()
