"""Two models' trials of one protocol: what may be compared, and how."""

import os
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

from densessl.core.errors import InputError

from ..results import Record
from ..tables.experiments import (
    difference,
    require_different_seeds,
    require_one_experiment,
    which,
)
from ..tables.pretrainings import by_recipe, control_of, pretrainings
from ..tables.pretrainings import values_of as values_by_pretraining
from ..tables.t_test import Difference, of_pretrainings, paired, welch
from .selection import metrics_of, of_one_kind, values_of

Folders = tuple[str, str]  # of A and B, as the user named them
Records = tuple[Sequence[Record], Sequence[Record]]


@dataclass(frozen=True)
class Side:
    """One of the two: its name in words, its folder, and its trials by seed.

    ``pretrainings``: how many its trials are of. ``control``: which start without pretraining it
    is, if any; of that each trial is a network of its own.
    """

    name: str
    folder: str
    trials: tuple[Record, ...]
    pretrainings: int
    control: str


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

    @property
    def of_two_networks(self) -> bool:
        """Whether two pretrained networks are compared, and no methods: the unit is the trial."""
        return _of_two_networks(self.a, self.b)


def compare(
    folders: Folders,
    records: Records,
    protocol: str | None = None,
    variant: str | None = None,
    metrics: Sequence[str] = (),
) -> Comparison:
    """Compare the trials of two folders under one protocol, with the pretraining as the unit.

    The trials of two single pretrainings are compared as such, paired by seed where they share
    seeds: then the difference is one of these two networks.

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
        Side(name, folder, tuple(trials), len(pretrainings(trials)), control_of(trials[0]))
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
    """The folder's trials of one recipe, by seed."""
    trials = of_one_kind(records, protocol, variant)
    models = by_recipe(trials)
    if len(models) > 1:
        some = ", ".join(f"{own[0].method} [{which(own)}]" for own in models[:4])
        more = f" and {len(models) - 4} more" if len(models) > 4 else ""
        raise InputError(
            f"{folder} holds trials of {len(models)} models under {protocol}: {some}{more}; name "
            "the folder of one (or of several pretrainings by one recipe)"
        )
    require_one_experiment(trials)
    require_different_seeds(trials)
    return sorted(trials, key=lambda trial: (trial.pretrain.get("seed") or 0, trial.seed))


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
    first, second = (Path(folder.split(os.pathsep)[0]).resolve().name for folder in folders)
    return (first, second) if first != second else folders


def _of_two_networks(a: Side, b: Side) -> bool:
    sides = (a, b)
    return all(side.pretrainings == 1 and not side.control for side in sides) or all(
        side.control for side in sides
    )


def _difference(a: Side, b: Side, metric: str) -> tuple[Difference | None, str]:
    """B − A and what was left out; None, and why, where a side has no value.

    The unit is the pretraining, but between two single ones. Their trials are paired where more
    than half of each side's have a partner with their seed. Fewer pairs would throw away more than
    they win, so the sides are taken as independent.
    """
    if not _of_two_networks(a, b):
        return _between(a, b, metric)
    of_a, of_b = values_of(a.trials, metric), values_of(b.trials, metric)
    if not of_a or not of_b:
        return None, _undefined(a, of_a, b, of_b)
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


def _between(a: Side, b: Side, metric: str) -> tuple[Difference | None, str]:
    """B − A by pretrainings, and which of their fine-tunings have no value."""
    of_a, of_b = (values_by_pretraining(side.trials, metric) for side in (a, b))
    if not of_a or not of_b:
        return None, _undefined(a, of_a, b, of_b)
    without = [
        f"{side.name} has no value in {missing} of {len(side.trials)} trials"
        for side, own in ((a, of_a), (b, of_b))
        if (missing := len(side.trials) - sum(map(len, own)))
    ]
    return of_pretrainings(of_a, of_b), "; ".join(without)


def _undefined(a: Side, of_a: Sized, b: Side, of_b: Sized) -> str:
    whose = " and of ".join(side.name for side, own in ((a, of_a), (b, of_b)) if not own)
    return f"undefined in every trial of {whose}"


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
