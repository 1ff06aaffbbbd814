"""The task ``cls``: class folders, measured by linear classifiers of frozen features."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from densessl.core.errors import InputError
from densessl.d2_transfer.classification.folders import read_folders
from densessl.d2_transfer.classification.images import Images

from . import linking
from .model import PlannedProtocol, Reads, Timing

FOLDER = "classes"  # of links to both folders, below data/ in the study's
STEPS = {"cpu": (400, 200, 100), "cuda": (5000, 2500, 1250)}  # of the classifier, by effort
BATCH = {"cpu": 64, "cuda": 256}
LARGEST = 96  # side that the network sees without a GPU
STRIDE = 32


@dataclass(frozen=True)
class Classes:
    """Class folders to learn from and to measure with; ``folder`` is the study's."""

    train: Images
    val: Images
    folder: Path
    side: float  # of the images, shorter, about
    frozen: bool = True

    @property
    def efforts(self) -> int:
        return len(STEPS["cpu"])

    @property
    def images(self) -> int:
        return len(self.train)

    @cached_property
    def classes_of(self) -> list[tuple[int, ...]]:
        return [(int(label),) for label in self.train.labels]

    def protocols(self, network: str, cuda: bool, effort: int = 0) -> tuple[PlannedProtocol, ...]:
        """Linear classifiers at several rates, of which the best counts, as in papers."""
        kind = "cuda" if cuda else "cpu"
        options = {
            "MODEL.BACKBONE": network,
            "SOLVER.MAX_ITER": str(STEPS[kind][effort]),  # the same for few labels and for many
            "SOLVER.IMS_PER_BATCH": str(BATCH[kind]),
            "SOLVER.PER": "step",
            "TEST.EVAL_PERIOD": "0.0",
            "DATASETS.FOLDER": FOLDER,
        }
        if not cuda:
            side = max(min(int(self.side), LARGEST) // STRIDE * STRIDE, STRIDE)
            options |= {"INPUT.SIZE": str(side), "INPUT.RESIZE": str(side * 8 // 7)}
            options |= {"TEST.IMS_PER_BATCH": "64", "DATALOADER.NUM_WORKERS": "0"}
        return (PlannedProtocol("linear", "dino", "linear/top1_best_lr", options),)

    def trial_seconds(self, network: str, cuda: bool) -> Timing:
        from ..jobs import resolved
        from .speeds import TimedClassifier

        (protocol,) = self.protocols(network, cuda)
        words = [word for pair in protocol.options.items() for word in pair]
        cfg = resolved(protocol.name, protocol.variant, words, gpus=int(cuda)).cfg
        image = TimedClassifier(cfg, self.train).image
        steps, batch = STEPS["cuda" if cuda else "cpu"], cfg.SOLVER.IMS_PER_BATCH
        return (
            lambda effort, images: (steps[effort] * batch + len(self.val)) * image,
            lambda effort: 0.0,
        )

    def prepare(self) -> None:
        """Links to both folders, where the protocol looks for them."""
        path = self.folder / "data" / FOLDER
        path.mkdir(parents=True, exist_ok=True)
        for name, images in (("train", self.train), ("val", self.val)):
            if not (path / name).is_symlink():
                (path / name).symlink_to(images.root)

    def reads(self, subset: Path | None) -> Reads:
        data = self.folder / "data"
        if subset is None:
            return Reads(data=data)
        path = Path("..", "..", subset.relative_to(self.folder))  # from data/classes
        return Reads(data=data, options={"DATASETS.TRAIN": str(path)})

    def write(self, folder: Path, numbers: Sequence[int]) -> None:
        """A subset as class folders of links."""
        files = [self.train.root / self.train.name(number) for number in numbers]
        linking.link(files, self.train.root, folder)


def read(args: Namespace, folder: Path) -> Classes:
    """The class folders that ``--train`` and ``--val`` name; InputError."""
    for name in ("train", "val"):
        if not Path(getattr(args, name)).is_dir():
            raise InputError(f"--{name}: the folder {getattr(args, name)} is not there")
    train, val = read_folders(Path("/"), (args.train, args.val), "")
    numbers = np.linspace(0, len(train) - 1, min(len(train), 16)).astype(int)
    side = float(np.median([min(train.open(int(number)).size) for number in numbers]))
    return Classes(train, val, folder, side)
