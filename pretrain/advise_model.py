"""What advice is asked about, and what it consists of."""

from dataclasses import dataclass, field
from typing import Any

from fvcore.common.config import CfgNode

from densessl.core.options import nested

from . import config

GPU_BYTES = 16e9  # of a GPU, where none is here to ask


@dataclass(frozen=True)
class ImageStats:
    """What the folder holds: ``side`` is the median shorter side in pixels, ``grey`` a share."""

    number: int
    side: float
    grey: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What trains: GPUs (0: the CPU), the memory of each in bytes, cores for loading."""

    gpus: int
    gpu_bytes: float = GPU_BYTES
    cores: int = 4


@dataclass(frozen=True)
class AdvisedOption:
    """One option, why it has its value, and who says so."""

    option: str
    value: Any
    reason: str
    source: str


@dataclass
class Advice:
    """A whole config: the choices in their order, what no option says, and processes to start."""

    name: str  # of the config that it starts from
    cfg: CfgNode
    published: CfgNode  # that config as it is
    choices: list[AdvisedOption] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    processes: int = 1

    def choose(self, option: str, value: Any, reason: str, source: str) -> None:
        """Set an option (at the value that it has, too), with its reason."""
        config.merge(self.cfg, nested({option: value}), "the advice")
        self.choices.append(AdvisedOption(option, value, reason, source))
