"""How a method is pretrained on so many images of such a size: ``densessl advise``, and what a
short run on a CPU needs beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fvcore.common.config import CfgNode

from densessl.pretrain import config
from densessl.pretrain.advise_model import Advice, ImageStats, Machine
from densessl.pretrain.advise_rules import advise, run_steps, starting_config

SHORT = {"simclr": "demo_simclr"}  # of a method: its config for short runs on a CPU
SMALLEST = 32  # views of a network's whole stride
LEAST_OF_DENSE = 64  # views of at least two by two positions
LARGEST = 128


@dataclass(frozen=True)
class Recipe:
    """A method, fitted. ``view``: the side of its views where that was chosen here (0: not)."""

    method: str
    network: str
    images: ImageStats
    machine: Machine
    view: int = 0

    @property
    def name(self) -> str:
        """What its arm is called."""
        return Path(self.method).stem if Path(self.method).is_file() else self.method

    @property
    def config(self) -> str:
        """The built-in config, or the file."""
        return self.method if self.machine.gpus else SHORT.get(self.method, self.method)

    def advice(self, most_steps: int | None = None) -> Advice:
        """The config with the advised options, of at most so many steps."""
        advice = advise(self.images, self.machine, self.config, most_steps)
        cfg = advice.cfg
        if self.network != cfg.BACKBONE.NAME:
            advice.choose("BACKBONE.NAME", self.network, "that of all arms", "study")
        if self.view and self.view != cfg.VIEWS.SIZE:
            advice.choose("VIEWS.SIZE", self.view, "a third of the image", "study")
        if not self.machine.gpus:
            advice.choose("DEVICE", "cpu", "no GPU", "study")
            if cfg.BACKBONE.NORM == "SyncBN":
                advice.choose("BACKBONE.NORM", "BN", "one process", "study")
        if not cfg.CHECKPOINT.STEPS:
            advice.choose("CHECKPOINT.KEEP", 1, "only the last is used", "study")
        return advice

    @cached_property
    def full(self) -> int:
        """The steps that so many images deserve."""
        return run_steps(self.advice().cfg, self.images.number)

    def words(self, most_steps: int | None) -> tuple[tuple[str, ...], CfgNode]:
        """``KEY VALUE`` of all options, and the config that they make."""
        advice = self.advice(most_steps)
        chosen: Mapping[str, str] = {each.option: str(each.value) for each in advice.choices[1:]}
        return tuple(word for pair in chosen.items() for word in pair), advice.cfg

    @property
    def smaller(self) -> "Recipe | None":
        """The same with views of half the side, where that leaves enough to see."""
        cfg = self.advice().cfg
        least = LEAST_OF_DENSE if is_dense(cfg) else SMALLEST
        side = cfg.VIEWS.SIZE // 2 // SMALLEST * SMALLEST
        if self.machine.gpus or side < least:
            return None
        return Recipe(self.method, self.network, self.images, self.machine, side)


def is_dense(cfg: CfgNode) -> bool:
    """Whether a method compares positions, of which its views need several."""
    return cfg.METHOD.NAME not in ("simclr", "moco", "simsiam", "byol", "swav", "dino")


def first(method: str, network: str, images: ImageStats, machine: Machine) -> Recipe:
    """The recipe to begin with. On a CPU views show a third of the image at its own resolution."""
    start = Recipe(method, network, images, machine)
    if machine.gpus:
        return start
    least = LEAST_OF_DENSE if is_dense(start.advice().cfg) else SMALLEST
    third = round(images.side / 3 / SMALLEST) * SMALLEST
    return Recipe(method, network, images, machine, min(max(third, least), LARGEST))


def default_methods(images: ImageStats) -> tuple[str, str]:
    """An image-level method, and the one that ``densessl advise`` begins with."""
    return "simclr", starting_config(images)[0]


def default_network(images: ImageStats, machine: Machine) -> str:
    return advise(images, machine).cfg.BACKBONE.NAME


def check(method: str) -> None:
    """InputError for a method that is no config."""
    config.find(method)
