"""Two models' trials of one protocol: what may be compared, and how."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from console.errors import InputError

from ..results import Record
from ..tables.experiments import (
    by_model,
    difference,
    require_different_seeds,
    require_one_experiment,
    short_sum,
)
from .selection import metrics_of, of_one_kind, values_of
from .t_test import Difference, paired, welch

Folders = tuple[str, str]  # of A and B, as the user named them
Records = tuple[Sequence[Record], Sequence[Record]]


@dataclass(frozen=True)
class Side:
    """One of the two: its name in words, its folder, and its trials by seed."""

    name: str
    folder: str
    trials: tuple[Record, ...]


@dataclass(frozen=True)
class Comparison:
    """B against A. ``differences``: by metric, the main one first.

    ``left_out``: for each metric what does not count: trials without a partner, or without a value;
    the metric itself where a side has none, and then it is not among the ``differences``.
    """

    a: Side
    b: Side
    protocol: str
    variant: str
    mini: bool
    differences: dict[str, Difference]
    left_out: dict[str, str]

    @property
    def main(self) -> str:
        """The metric that the verdict is on."""
        return next(iter(self.differences))


def compare(
    folders: Folders,
    records: Records,
    protocol: str | None = None,
    variant: str | None = None,
    metrics: Sequence[str] = (),
) -> Comparison:
    """Compare the trials of two folders under one protocol, paired by seed where they share seeds.

    ``metrics``: the first is the main one; default: those that the protocol reports. Raises
    InputError for records that do not compare: of several protocols, variants or models in a
    folder, of other configs, miniatures beside full trials, the same trials twice, a seed that
    occurs twice, and for a metric that both never measured.
    """
    protocol, variant = _kind(folders, records, protocol, variant)
    chosen = [_trials_of(*each, protocol, variant) for each in zip(folders, records, strict=True)]
    of_one_kind([*chosen[0], *chosen[1]])  # a miniature on one side alone
    _require_comparable(folders, *chosen)
    names = metrics_of([*chosen[0], *chosen[1]], metrics)
    a, b = (
        Side(name, folder, tuple(trials))
        for name, folder, trials in zip(_names(folders, *chosen), folders, chosen, strict=True)
    )
    differences, left_out = {}, {}
    for metric in names:
        found, without = _difference(a, b, metric)
        if found is not None:
            differences[metric] = found
        elif metric == names[0]:
            defined = [each for each in names if _difference(a, b, each)[0] is not None]
            raise InputError(
                f"{metric}, which the verdict is on, is {without}; "
                f"{f'--metric {defined[0]} names another' if defined else 'and so are the others'}"
            )
        left_out[metric] = without
    return Comparison(a, b, protocol, variant, a.trials[0].mini, differences, left_out)


def _kind(
    folders: Folders, records: Records, protocol: str | None, variant: str | None
) -> tuple[str, str]:
    """The protocol and the variant: those named, else the only ones that both folders have."""
    a, b = ({(record.protocol, record.variant) for record in each} for each in records)
    common = sorted(
        kind for kind in a & b if protocol in (None, kind[0]) and variant in (None, kind[1])
    )
    if len(common) == 1:
        return common[0]
    if not a & b:
        raise InputError(
            f"the folders have no protocol and variant in common: {folders[0]} has {_spelled(a)}; "
            f"{folders[1]} has {_spelled(b)}"
        )
    for found in records:
        of_one_kind(found, protocol, variant)  # names what is not there, or what to choose from
    raise InputError(f"--protocol and --variant name nothing that both have: {_spelled(a & b)}")


def _spelled(kinds: Iterable[tuple[str, str]]) -> str:
    return ", ".join(sorted(f"{name} ({way})" if way else name for name, way in kinds))


def _trials_of(folder: str, records: Sequence[Record], protocol: str, variant: str) -> list[Record]:
    """The folder's trials of one model."""
    trials = of_one_kind(records, protocol, variant)
    models = by_model(trials)
    if len(models) > 1:
        some = ", ".join(f"{own[0].method} [{short_sum(own[0])}]" for own in models[:4])
        more = f" and {len(models) - 4} more" if len(models) > 4 else ""
        raise InputError(
            f"{folder} holds trials of {len(models)} models under {protocol}: {some}{more}; name "
            "the folder of one"
        )
    require_one_experiment(trials)
    require_different_seeds(trials)
    return sorted(trials, key=lambda trial: trial.seed)


def _require_comparable(folders: Folders, a: list[Record], b: list[Record]) -> None:
    if {trial.folder for trial in a} & {trial.folder for trial in b}:
        raise InputError(f"{folders[0]} and {folders[1]} hold the same trials; name two folders")
    if different := difference([a[0], b[0]]):
        raise InputError(
            f"A and B were not fine-tuned under one config, so their numbers do not compare: "
            f"{different}"
        )


def _names(folders: Folders, a: list[Record], b: list[Record]) -> tuple[str, str]:
    """The methods, or what else tells the two apart."""
    if a[0].method != b[0].method:
        return a[0].method, b[0].method
    names = tuple(Path(folder).resolve().name for folder in folders)
    return names if names[0] != names[1] else folders


def _difference(a: Side, b: Side, metric: str) -> tuple[Difference | None, str]:
    """B − A and what was left out; None, and why, where a side has no value.

    Paired where more than half of each side's trials have a partner with their seed. Fewer pairs
    would throw away more than they win, so the sides are taken as independent.
    """
    of_a, of_b = values_of(a.trials, metric), values_of(b.trials, metric)
    if not of_a or not of_b:
        whose = " and of ".join(side.name for side, own in ((a, of_a), (b, of_b)) if not own)
        return None, f"undefined in every trial of {whose}"
    remarks = [
        f"{side.name} has no value with seed {_list(sorted(missing))}"
        for side, own in ((a, of_a), (b, of_b))
        if (missing := {trial.seed for trial in side.trials} - own.keys())
    ]
    common = sorted(of_a.keys() & of_b.keys())
    if 2 * len(common) > max(len(of_a), len(of_b)):
        alone = sorted(of_a.keys() ^ of_b.keys())
        if alone:
            remarks.append(f"no partner for seed {_list(alone)}")
        found = paired([of_a[seed] for seed in common], [of_b[seed] for seed in common])
    else:
        found = welch(list(of_a.values()), list(of_b.values()))
    return found, "; ".join(remarks)


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
