"""The jobs of a study: pretrainings, then the trials of every arm, then the page.

In the study's folder: ``pretrain/ARM/K``, ``results/PROTOCOL/PERCENT/ARM/K/trial_1``, where K
is the number of the draw of labelled images as well as of the pretraining (or random start), so
that arms can be compared draw by draw.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from densessl.annotations.draws import draw
from densessl.d2_transfer import own_data
from densessl.d2_transfer.protocols import find

from .. import jobs as making
from ..graph import Job, Resources
from . import linking
from .classes import Classes
from .coco import Coco
from .draws import Share
from .model import GIVEN, PRETRAINED, Arm, Plan, PlannedProtocol
from .segmentation import Segmentation

Data = Classes | Coco | Segmentation
DETERMINISTIC = ("custom_semseg",)  # protocols in which of given weights nothing is random


@dataclass(frozen=True)
class StudyMachines:
    """What trains: on each of ``nodes`` so many GPUs (0: the CPU). ``local``: this machine."""

    nodes: int = 1
    gpus: int = 0
    local: bool = True


def pretraining(folder: Path, arm: str, seed: int) -> Path:
    """The folder of one of an arm's pretrainings."""
    return folder / "pretrain" / arm / str(seed)


def measured(folder: Path, arm: str) -> Path:
    """The file that says that all trials of an arm are done."""
    return folder / "results" / f"{arm}.json"


class Graph:
    """The jobs of ``plan`` on ``data`` in ``folder``; what a subset needs is written first."""

    def __init__(self, plan: Plan, data: Data, folder: Path, machines: StudyMachines):
        self.plan, self.data, self.folder, self.machines = plan, data, folder, machines
        self._own: dict[tuple, object] = {}

    def jobs(self) -> list[Job]:
        """All of them, arm by arm: here one measures an arm, on a cluster each trial is one."""
        all_jobs: list[Job] = []
        for arm in self.plan.arms:
            all_jobs += self.pretrainings(arm)
            trials = [job for seed in range(self.plan.seeds) for job in self.trials(arm, seed)]
            all_jobs += [self._together(arm, trials)] if self.machines.local else trials
        page = Job(
            "page",
            ("study", "--page", str(self.folder)),
            outputs=(self.folder / "report.html",),
            after=tuple(job.name for job in all_jobs),
        )
        return [*all_jobs, page]

    def pretrainings(self, arm: Arm) -> list[Job]:
        return [
            making.pretrain_job(
                arm.config,
                ["DATA.PATH", self.plan.images, *arm.options, "SEED", str(seed)],
                pretraining(self.folder, arm.name, seed),
                name=f"pretrain-{arm.name}-{seed}",
                nodes=self.machines.nodes,
                gpus=self.machines.gpus,
                local=self.machines.local,
            )
            for seed in range(arm.pretrainings)
        ]

    def trials(self, arm: Arm, seed: int) -> Iterator[Job]:
        """Those of one draw, of the fewest labels first."""
        if arm.kind == PRETRAINED and seed >= arm.pretrainings:
            return
        for protocol in self.plan.protocols:
            for share in self.plan.labels:
                everything = share.images == self.data.images
                if protocol.name in DETERMINISTIC and arm.kind == GIVEN and everything and seed:
                    continue  # nothing in it is random: it would be the same number
                yield self._trial(arm, seed, protocol, share)

    def _trial(self, arm: Arm, seed: int, protocol: PlannedProtocol, share: Share) -> Job:
        start, needs = arm.weights or arm.name, tuple[str, ...]()
        if arm.kind == PRETRAINED:
            job = self.pretrainings(arm)[seed]
            start, needs = str(job.outputs[0]), (job.name,)
        reads = self.data.reads(self._subset(share, seed))
        options = {**protocol.options, **reads.options}
        if protocol.name == "custom_semseg":
            options["FEATURES.CACHE"] = str(self.features(arm, seed))
        key = (protocol.name, share.images, seed if share.images < self.data.images else None)
        if key not in self._own:
            self._own[key] = own_data.of(find(protocol.name)[0], reads.own_data)
        (trial,) = making.transfer_jobs(
            start,
            protocol.name,
            protocol.variant or None,
            1,
            self.trial_folder(arm, seed, protocol, share),
            name=f"{protocol.folder}-{share.name}-{arm.name}-{seed}",
            options=[word for pair in options.items() for word in pair],
            nodes=1,
            gpus=self.machines.gpus,
            needs=needs,
            seed=seed + 1,
            own=self._own[key],
            together=True,
            mini=self.plan.mini,
            data=reads.data,
            **reads.own_data,
        )
        return trial

    def trial_folder(self, arm: Arm, seed: int, protocol: PlannedProtocol, share: Share) -> Path:
        """Where the trial's records go."""
        return self.folder / "results" / protocol.folder / share.name / arm.name / str(seed)

    def features(self, arm: Arm, seed: int) -> Path:
        """Where the trials of a network keep its features, while they run."""
        return self.folder / "features" / f"{arm.name}-{seed}"

    def _subset(self, share: Share, seed: int) -> Path | None:
        """The folder of a draw; None for all images."""
        if share.images >= self.data.images:
            return None
        folder = self.folder / "labels" / share.name / str(seed)
        linking.once(folder, lambda part: self.data.write(part, self._numbers(share, seed)))
        return folder

    def _numbers(self, share: Share, seed: int) -> list[int]:
        return sorted(draw(self.data.classes_of, share.images, seed))

    def _together(self, arm: Arm, trials: list[Job]) -> Job:
        """One process for all trials of an arm: a start of Python takes as long as some trials."""
        return Job(
            f"measure-{arm.name}",
            ("study", "--measure", arm.name, "-o", str(self.folder)),
            after=tuple(job.name for job in self.pretrainings(arm)),
            outputs=(measured(self.folder, arm.name),),
            content=tuple(word for job in trials for word in (job.name, *job.content)),
            resources=Resources(1, self.machines.gpus),
        )
