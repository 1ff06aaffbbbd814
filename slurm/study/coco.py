"""The tasks ``det`` and ``mask``: one's own COCO files, measured by fine-tuned detectors."""

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from densessl.core.errors import InputError
from densessl.core.files import decode, write_json
from densessl.d2_transfer.datasets import custom

from .model import PlannedProtocol, Reads, Timing

PROTOCOLS = {"det": ("custom_det", "bbox/AP"), "mask": ("custom_mask", "segm/AP")}
JSON = "annotations.json"
STRIDES = (1, 2, 4, 8, 16, 40, 80)  # by effort: the protocol's schedule is divided by it
RESNETS = {"resnet18": (18, 64), "resnet50": (50, 256), "resnet101": (101, 256)}


@dataclass(frozen=True)
class Coco:
    """Two annotation files with their folders of images, checked."""

    task: str
    data: custom.Custom
    mini: bool = False  # whose schedule is the miniature's
    frozen: bool = False

    @property
    def efforts(self) -> int:
        return 1 if self.mini else len(STRIDES)

    @cached_property
    def content(self) -> dict:
        return json.loads(decode(Path(self.data.train_json).read_bytes()))

    @property
    def images(self) -> int:
        return len(self.content["images"])

    @cached_property
    def classes_of(self) -> list[tuple[int, ...]]:
        """The numbers of the categories of each image's objects."""
        numbers = {id: number for number, (id, _) in enumerate(self.data.categories)}
        found: dict = {image["id"]: set() for image in self.content["images"]}
        for each in self.content["annotations"]:
            if each["category_id"] in numbers and not each.get("iscrowd"):
                found[each["image_id"]].add(numbers[each["category_id"]])
        return [tuple(sorted(labels)) for labels in found.values()]

    def protocols(self, network: str, cuda: bool, effort: int = 0) -> tuple[PlannedProtocol, ...]:
        """A detector on that network, of the protocol's schedule or a part of it."""
        name, metric = PROTOCOLS[self.task]
        if network not in RESNETS:
            raise InputError(f"the network is {network}; {name} fine-tunes {', '.join(RESNETS)}")
        depth, width = RESNETS[network]
        options = {"MODEL.RESNETS.DEPTH": str(depth), "MODEL.RESNETS.RES2_OUT_CHANNELS": str(width)}
        if depth == 50:
            options = {}
        # The same for few labels and for many.
        steps = max(custom.schedule(self.data.images, 16) // STRIDES[effort] // 9 * 9, 9)
        if not self.mini and (effort or not cuda):
            options |= {
                "SOLVER.MAX_ITER": str(steps),
                "SOLVER.STEPS": str((steps * 2 // 3, steps * 8 // 9)),
                "SOLVER.WARMUP_ITERS": str(max(steps // 20, 1)),
            }
        if not cuda:
            options["DATALOADER.NUM_WORKERS"] = "0"
        return (PlannedProtocol(name, "", metric, options),)

    def trial_seconds(self, network: str, cuda: bool) -> Timing:
        from ..jobs import resolved
        from .speeds import Detector

        def cfg(effort: int) -> CfgNode:
            (protocol,) = self.protocols(network, cuda, effort)
            words = [word for pair in protocol.options.items() for word in pair]
            return resolved(
                protocol.name, None, words, gpus=int(cuda), custom=self.data, mini=self.mini
            ).cfg

        detector = Detector(cfg(0), self.data)
        steps = [cfg(effort).SOLVER.MAX_ITER for effort in range(self.efforts)]
        validation = self.data.evaluated * detector.image
        beside = detector.beside + validation
        return lambda effort, images: beside + steps[effort] * detector.step, lambda effort: 0.0

    def prepare(self) -> None:
        """Nothing is needed beside the draws."""

    def reads(self, subset: Path | None) -> Reads:
        names = ("train_json", "train_images", "val_json", "val_images")
        paths = {name: getattr(self.data, name) for name in names}
        if subset is not None:
            paths["train_json"] = str(subset / JSON)
        return Reads(own_data=paths)

    def write(self, folder: Path, numbers: Sequence[int]) -> None:
        """A subset: these images alone, with their annotations, and all categories."""
        images = [self.content["images"][number] for number in numbers]
        kept = {image["id"] for image in images}
        annotations = [each for each in self.content["annotations"] if each["image_id"] in kept]
        write_json(folder / JSON, self.content | {"images": images, "annotations": annotations})


def read(args: Namespace, folder: Path) -> Coco:
    """The files that ``--train`` and ``--val`` name, ``JSON:IMAGES``, checked whole; InputError."""
    paths: dict[str, Any] = {}
    for split in ("train", "val"):
        word = getattr(args, split)
        file, _, images = word.partition(os.pathsep)
        if not (file and images):
            raise InputError(f"--{split} '{word}' is not ANNOTATIONS.json{os.pathsep}IMAGES")
        if not Path(file).is_file():
            raise InputError(f"--{split}: the file {file} is not there")
        if not Path(images).is_dir():
            raise InputError(f"--{split}: the folder {images} is not there")
        paths |= {f"{split}_json": file, f"{split}_images": images}
    data = custom.read(
        paths["train_json"],
        paths["train_images"],
        paths["val_json"],
        paths["val_images"],
        need_masks=args.task == "mask",
    )
    return Coco(args.task, data, args.mini)
