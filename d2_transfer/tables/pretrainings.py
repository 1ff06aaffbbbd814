"""Which records make one row, and which of its trials one pretraining: the unit of a claim.

Two pretrainings are of one recipe when their options differ in nothing but the seed. A start
without pretraining (``random``, ``random_bn``) is drawn anew in each trial, by the trial's seed: of
these each trial is a network of its own.
"""

import json
from collections.abc import Iterable, Sequence

from ..results import Record

CONTROLS = ("random", "random_bn")
# Facts that may differ between the pretrainings of one recipe: the seed, and on how many processes.
FREE = ("seed", "processes")


def control_of(record: Record) -> str:
    """Which control the record is of, whatever a label calls it; empty for a pretrained network."""
    path = record.weights.get("path", "")
    return path if path in CONTROLS and not record.weights.get("sha256") else ""


def by_recipe(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each row, as they came: those of one recipe, whatever its seeds.

    Where the record names no recipe (weights of others, records of before), and where two
    pretrained networks of one recipe have one seed under one protocol, a row is one network.
    """
    rows: dict[tuple, list[Record]] = {}
    for record in records:
        rows.setdefault(_recipe(record) or _network(record), []).append(record)
    found: list[list[Record]] = []
    for key, trials in rows.items():
        if key[0] == "recipe" and _has_twins(trials):
            found += _grouped(trials, _network)
        else:
            found.append(trials)
    return found


def pretrainings(trials: Iterable[Record]) -> list[list[Record]]:
    """The trials of each pretraining of a row; of a control, each trial by itself."""
    trials = list(trials)
    if trials and control_of(trials[0]):
        return [[trial] for trial in trials]
    return _grouped(trials, lambda trial: (trial.pretrain.get("seed"), trial.weights["sha256"]))


def values_of(trials: Sequence[Record], metric: str) -> list[list[float]]:
    """By pretraining, the values of its trials that have a number there; none is empty."""
    found = (
        [trial.metrics[metric] for trial in each if metric in trial.metrics]
        for each in pretrainings(trials)
    )
    numbers = ([value for value in each if value == value] for each in found)  # not NaN
    return [each for each in numbers if each]


def seeds_of(trials: Sequence[Record]) -> list[int]:
    """The seeds of a row's pretrainings, where its records tell them."""
    found = {trial.pretrain.get("seed") for trial in trials if trial.pretrain.get("recipe")}
    return sorted(seed for seed in found if isinstance(seed, int))


def _grouped(trials: Iterable[Record], key) -> list[list[Record]]:
    found: dict[tuple, list[Record]] = {}
    for trial in trials:
        found.setdefault(key(trial), []).append(trial)
    return list(found.values())


def _network(record: Record) -> tuple:
    """What tells one pretrained network: method, weights and their facts."""
    facts = json.dumps(record.pretrain, sort_keys=True)
    return ("network", record.method, record.weights["sha256"], facts)


def _recipe(record: Record) -> tuple | None:
    """What all pretrainings of the record's recipe have in common; None where none is named."""
    facts = record.pretrain
    if not facts.get("recipe") or not isinstance(facts.get("seed"), int):
        return None
    start = ("start_sha256",) if facts.get("start_recipe") else ()
    common = {key: value for key, value in facts.items() if key not in (*FREE, *start)}
    return ("recipe", record.method, json.dumps(common, sort_keys=True))


def _has_twins(trials: Iterable[Record]) -> bool:
    """Whether two networks of one seed were measured alike (a branch of each, say)."""
    hashes: dict[tuple, str] = {}
    for trial in trials:
        place = (trial.protocol, trial.variant, trial.mini, trial.pretrain["seed"])
        if hashes.setdefault(place, trial.weights["sha256"]) != trial.weights["sha256"]:
            return True
    return False
