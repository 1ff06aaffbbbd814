"""Whether the pretrainings of ``make evidence`` learnt anything: their signs of life."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from densessl.d2_transfer.report.collect import Pretraining, find
from densessl.slurm.pipeline import Spec

from .measured import SEED

LINES = 5  # of the log, the last ones, that are averaged
ACCURACIES = {"accuracy": "chance", "positions_accuracy": "positions_chance"}
COLLAPSE = "collapse/"


def of_rows(spec: Spec, folder: Path) -> dict[str, list[Pretraining]]:
    """By method its pretrainings that have come to their end."""
    methods = {row.name: row.method for row in spec.rows if row.pretrain}
    found: dict[str, list[Pretraining]] = {method: [] for method in methods.values()}
    for run in find([folder / "pretrain"]).pretrainings:
        method = methods.get(SEED.sub("", run.folder.name))
        if method and run.step == int(run.option("SOLVER.MAX_STEPS", 0)):
            found[method].append(run)
    return {method: runs for method, runs in found.items() if runs}


def rows(found: Mapping[str, Sequence[Pretraining]]) -> list[tuple[str, ...]]:
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
