"""What ``make evidence`` has measured: the records of a pipeline's folder, by probe and method."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densessl.d2_transfer import results
from densessl.d2_transfer.report.collect import Pretraining, find
from densessl.slurm import pipeline
from densessl.slurm.spec import ProtocolSpec, RowSpec, Spec, seeds_of

METRIC = "sem_seg/mIoU"
IMAGE_LEVEL = ("MoCo-v2", "SimSiam")
DENSE = ("DenseCL", "PixPro", "SetSim", "SCFS")
METHODS = (*IMAGE_LEVEL, *DENSE)
CONTROLS = ("random", "random_bn")
OUTSIDE = {"lightly MoCo-v2": "MoCo-v2", "lightly DenseCL": "DenseCL"}  # and what it checks
SEED = re.compile(r"-seed(\d+)$")
SHORTCUTS = "shortcuts.json"
TITLES = {"scenes": "Scenes", "photos": "Photographs"}
PROBES = {
    "linear": "linear layer",
    "knn": "nearest neighbours",
    "overcluster": "clusters",
    "finetuning": "FCN, fine-tuned",
}
NOT_MEASURED = {
    "scenes": "Not measured yet.",
    "photos": "Not measured yet: that takes `PHOTOS=DIR CAMVID=DIR`.",
}
LINES = 5  # of the log, the last ones, that are averaged
ACCURACIES = {"accuracy": "chance", "positions_accuracy": "positions_chance"}
COLLAPSE = "collapse/"


@dataclass
class Measured:
    """One data set's numbers.

    ``values[probe][method]``: the mIoU of each pretraining (of a control: of each trial), ordered
    by seed; a probe is the folder of a protocol. ``missing``: what has not been measured, as
    ``probe/method, seed``. ``shortcuts``: what :mod:`.shortcuts` wrote, if anything. ``seconds``:
    the jobs' times by kind (wall clock), as far as they are finished. ``versions``: of the records.
    """

    spec: Spec
    values: dict[str, dict[str, list[float]]]
    missing: list[str]
    shortcuts: Mapping | None
    seconds: dict[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def probes(self) -> list[str]:
        return [protocol.folder or protocol.name for protocol in self.spec.protocols]

    def of(self, probe: str, methods: Sequence[str]) -> dict[str, list[float]]:
        """The values of those methods that have any under a probe."""
        there = self.values.get(probe, {})
        return {method: there[method] for method in methods if there.get(method)}


def read(name: str, folder: Path) -> Measured:
    """The records of the built-in pipeline ``name`` in ``folder``; damaged are missing."""
    spec = pipeline.read(name)
    values: dict[str, dict[str, list[float]]] = {}
    missing: list[str] = []
    versions: Mapping[str, str] = {}
    for protocol in spec.protocols:
        probe = protocol.folder or protocol.name
        for row in spec.rows:
            if row.protocols and protocol.name not in row.protocols:
                continue
            found = values.setdefault(probe, {}).setdefault(row.method, [])
            for place, what in _places(spec, row, protocol):
                there = folder / "transfer" / probe / place
                records = results.collect([there], lambda _: None) if there.is_dir() else []
                if not records:
                    missing.append(f"{probe}/{row.method}{what}")
                    continue
                versions = records[0].versions
                each = [record.metrics[METRIC] for record in _by_seed(records)]
                found += each if row.method in CONTROLS else [sum(each) / len(each)]
                expected = row.trials or protocol.trials
                if len(each) < expected:
                    missing.append(f"{probe}/{row.method}{what}: {len(each)} of {expected} trials")
    shortcuts = folder / SHORTCUTS
    told = json.loads(shortcuts.read_text()) if shortcuts.is_file() else None
    return Measured(spec, values, missing, told, _seconds(folder), versions)


def _places(spec: Spec, row: RowSpec, protocol: ProtocolSpec) -> list[tuple[str, str]]:
    """The folders of a row's pretrainings below the protocol's, and what messages call each."""
    jobs = {job.name: job for job in spec.jobs}
    if row.method in CONTROLS:
        return [(row.start, "")]
    seeds = seeds_of(jobs[row.job].seeds if row.job else row.seeds or spec.seeds)
    return [(f"{row.name}-seed{seed}", f", seed {seed}") for seed in seeds]


def _by_seed(records: Sequence[results.Record]) -> list[results.Record]:
    return sorted(records, key=lambda record: record.seed)


def _seconds(folder: Path) -> dict[str, float]:
    """The wall-clock time of the finished jobs, by the first word of their name."""
    found: dict[str, float] = {}
    for file in sorted((folder / "jobs").glob("*.json")):
        kind = SEED.sub("", file.stem).partition("-")[0]
        found[kind] = found.get(kind, 0.0) + float(json.loads(file.read_text())["seconds"])
    return found


def pretrainings(spec: Spec, folder: Path) -> dict[str, list[Pretraining]]:
    """By method its pretrainings that have come to their end."""
    methods = {row.name: row.method for row in spec.rows if row.pretrain}
    found: dict[str, list[Pretraining]] = {method: [] for method in methods.values()}
    for run in find([folder / "pretrain"]).pretrainings:
        method = methods.get(SEED.sub("", run.folder.name))
        if method and run.step == int(run.option("SOLVER.MAX_STEPS", 0)):
            found[method].append(run)
    return {method: runs for method, runs in found.items() if runs}


def signs(found: Mapping[str, Sequence[Pretraining]]) -> list[tuple[str, ...]]:
    """For each method: accuracy of images and of positions at the end beside chance, and how many
    of its runs were warned of collapse."""
    return [
        (
            method,
            *(_accuracy(runs, *names) for names in ACCURACIES.items()),
            f"{sum(any(key.startswith(COLLAPSE) for key in run.last) for run in runs)} "
            f"of {len(runs)}",
        )
        for method, runs in found.items()
    ]


def of_older_sign(found: Mapping[str, Sequence[Pretraining]]) -> bool:
    """Whether records are of the accuracy of positions against all of another image's at once.

    They tell it by their chance: against one it is a half.
    """
    chances = [run.series("stat/positions_chance")[1] for runs in found.values() for run in runs]
    return any(values and values[-1] < 0.5 for values in chances)


def _accuracy(runs: Sequence[Pretraining], name: str, chance: str) -> str:
    """In per cent, of all runs' last lines; – where the method has none."""
    there = [run for run in runs if run.series(f"stat/{name}")[1]]
    if not there:
        return "–"
    value, guess = (
        statistics.fmean(statistics.fmean(run.series(f"stat/{key}")[1][-LINES:]) for run in there)
        for key in (name, chance)
    )
    return f"{100 * value:.0f} ({100 * guess:.0f})"
