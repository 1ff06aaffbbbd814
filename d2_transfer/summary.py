"""What several trials come to, as numbers and as text."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .results import Record


def summary(facts: dict, records: list[Record]) -> dict:
    """``facts`` and of every metric its mean, sample standard deviation (null for one), n, values.

    A metric that is undefined (NaN) in some trial is left out.
    """
    metrics = {}
    for name in records[0].metrics:
        values = [record.metrics.get(name, float("nan")) for record in records]
        if all(value == value for value in values):
            metrics[name] = {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "n": len(values),
                "values": values,
            }
    return {**facts, "seeds": [record.seed for record in records], "metrics": metrics}


def table(shown: Sequence[str], records: list[Record]) -> str:
    """The metrics ``shown`` as text: a line a trial, then mean ± standard deviation."""
    names = _there(shown, records[0].metrics)
    averages = summary({}, records)["metrics"]
    width = max(14, *(len(name) + 2 for name in ("", *names)))
    lines = [f"{'':16s}" + "".join(f"{name:>{width}s}" for name in names)]
    for place, record in enumerate(records, start=1):
        # others may run meanwhile, and those that are finished need not be the first ones
        number = record.folder.name.removeprefix("trial_") if record.folder else place
        values = [record.metrics.get(name, float("nan")) for name in names]
        cells = "".join(f"{_two_decimals(value):>{width}s}" for value in values)
        lines.append(f"{f'trial {number} (seed {record.seed})':16s}" + cells)
    averaged = []
    for name in names:
        average = averages.get(name, {"mean": float("nan"), "std": None})
        spread = "" if average["std"] is None else f" ± {average['std']:.2f}"
        averaged.append(f"{_two_decimals(average['mean'])}{spread}")
    count = len(records)
    lines.append(f"{f'mean of {count}':16s}" + "".join(f"{cell:>{width}s}" for cell in averaged))
    return "\n".join(lines)


def _there(shown: Sequence[str], metrics: Mapping[str, Any]) -> list[str]:
    """Those that were measured; all, where a user's own evaluator has none of them."""
    return [name for name in shown if name in metrics] or list(metrics)


def _two_decimals(value: float) -> str:
    """A dash where it is undefined (NaN)."""
    return f"{value:.2f}" if value == value else "–"


def metric_table(shown: Sequence[str], metrics: dict[str, float | None]) -> str:
    """The metrics ``shown`` of one evaluation as two lines of text."""
    names = _there(shown, metrics)
    values = [metrics[name] for name in names]
    cells = ["undefined" if value is None else f"{value:.2f}" for value in values]
    width = max(14, *(len(name) + 2 for name in ("", *names)))
    return "\n".join("".join(f"{word:>{width}s}" for word in line) for line in (names, cells))
