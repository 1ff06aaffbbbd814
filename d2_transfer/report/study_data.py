"""What a study measured: its ``study.json``, and each record with its arm and share of labels."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError
from densessl.core.files import read_object

from .. import results
from ..results import Record
from ..tables.pretrainings import control_of, pretrainings, values_of
from . import collect

FILE, RECORDS = "study.json", "results"
RANDOM, GIVEN, PRETRAINED = "random", "given", "pretrained"
KINDS = (RANDOM, GIVEN, PRETRAINED)


@dataclass(frozen=True)
class StudyArm:
    """One start that is compared: a random one, given weights, or a method's pretrainings.

    ``facts``: what ``study.json`` says of it: ``weights``; ``config``, ``pretrainings``, ``steps``,
    ``seconds``, ``trials``; each may be missing.
    """

    name: str
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyShare:
    """Some of the labelled training images."""

    percent: float
    images: int

    @property
    def text(self) -> str:
        return f"{self.percent:g}\u00a0%"


@dataclass(frozen=True)
class StudyProtocol:
    """By what the starts were measured; the first metric of the study's first one decides."""

    name: str
    variant: str
    metric: str


@dataclass
class Study:
    """A study's folder. ``records``: by (protocol's place, percent, arm), each as it was written.

    ``shares`` rise. ``passed_over``: what was found and could not be taken, in sentences.
    """

    folder: Path
    facts: dict[str, Any]
    protocols: list[StudyProtocol]
    arms: list[StudyArm]
    shares: list[StudyShare]
    records: dict[tuple[int, float, str], list[Record]] = field(default_factory=dict)
    runs: dict[str, list[collect.Pretraining]] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[StudyArm]:
        return [arm for arm in self.arms if arm.kind == kind]

    def trials(self, arm: str, share: StudyShare, protocol: int = 0) -> list[Record]:
        return self.records.get((protocol, share.percent, arm), [])

    def units(self, arm: str, share: StudyShare, metric: str = "") -> list:
        """By pretraining (of a random start: by network) the values of its trials, none empty."""
        return values_of(self.trials(arm, share), metric or self.protocols[0].metric)

    def by_draw(self, arm: str, share: StudyShare, metric: str = "") -> dict:
        """By seed of the trial its value; empty where two trials have one seed, or a network of a
        random start or pretraining has two trials."""
        metric, trials = metric or self.protocols[0].metric, self.trials(arm, share)
        values = [(each.seed, each.metrics.get(metric, math.nan)) for each in trials]
        alone = self.arm(arm).kind == GIVEN or all(len(e) == 1 for e in pretrainings(trials))
        if not alone or len(dict(values)) < len(values):
            return {}
        return {seed: value for seed, value in values if value == value}  # not NaN

    def arm(self, name: str) -> StudyArm:
        return next(each for each in self.arms if each.name == name)

    def draws(self, share: StudyShare) -> bool:
        """Whether each trial drew its own images of the share, by its seed, the same for all."""
        return self.facts.get("label_draw") == "by_trial" and share.percent < 100

    def networks(self, arm: str, share: StudyShare) -> dict[tuple, list[float]]:
        """As :meth:`units`, by what tells the networks apart: to be found again at other shares."""
        metric = self.protocols[0].metric
        found: dict[tuple, list[float]] = {}
        for trials in pretrainings(self.trials(arm, share)):
            values = [each.metrics.get(metric, math.nan) for each in trials]
            numbers = [value for value in values if value == value]  # not NaN
            if numbers:
                found[_network(trials[0])] = numbers
        return found

    def measured(self, arm: str) -> list[StudyShare]:
        """The shares at which the arm has a value."""
        return [share for share in self.shares if self.units(arm, share)]


def read(folder: str | os.PathLike) -> Study:
    """The study in a folder, finished or not.

    Raises InputError for a folder without a readable ``study.json``, with the key that is wrong.
    """
    folder = Path(folder)
    path = folder / FILE
    missing = "there is no study; 'densessl study' writes one"
    facts = read_object(path, "a study", missing=missing)
    study = Study(folder, facts, *_named(facts, path))
    _find_records(study)
    _find_runs(study)
    return study


def _named(
    facts: dict[str, Any], path: Path
) -> tuple[list[StudyProtocol], list[StudyArm], list[StudyShare]]:
    for key in ("protocols", "arms", "labels"):
        value = facts.get(key)
        if not (isinstance(value, list) and value and all(isinstance(e, dict) for e in value)):
            raise InputError(f"{path}: '{key}' is {value!r}; allowed: a list of objects")
    try:
        protocols = [
            StudyProtocol(str(each["name"]), str(each.get("variant") or ""), str(each["metric"]))
            for each in facts["protocols"]
        ]
        arms = [_arm(each, path) for each in facts["arms"]]
        shares = [
            StudyShare(float(each["percent"]), int(each["images"])) for each in facts["labels"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: protocols, arms or labels: {error!r}") from None
    for share in shares:
        if not (0 < share.percent <= 100 and share.images > 0):
            raise InputError(
                f"{path}: labels: percent {share.percent:g} of {share.images} images; allowed: "
                "above 0 to 100, and 1 image or more"
            )
    named: list = [[arm.name for arm in arms], [share.percent for share in shares]]
    for names in named:
        if double := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"{path}: '{double}' stands there twice")
    return protocols, arms, sorted(shares, key=lambda share: share.percent)


def _arm(values: dict[str, Any], path: Path) -> StudyArm:
    kind = str(values["kind"])
    if kind not in KINDS:
        raise InputError(f"{path}: arms: kind is '{kind}'; allowed: {', '.join(KINDS)}")
    return StudyArm(str(values["name"]), kind, values)


def _find_records(study: Study) -> None:
    root = study.folder / RECORDS
    if not root.is_dir():
        return
    found = results.collect([root], skip=lambda error: study.passed_over.append(f"{error}"))
    names = {arm.name for arm in study.arms}
    for record in found:
        percent, arm = _arm_of(record, root)
        protocol = _protocol(study, record)
        measured = any(percent == share.percent for share in study.shares)
        if protocol is None or percent is None or arm not in names or not measured:
            study.passed_over.append(
                f"{record.folder}: a record of another protocol, share of labels or start than "
                f"those of {FILE}"
            )
            continue
        named = replace(record, method=arm)
        study.records.setdefault((protocol, percent, arm), []).append(named)


def _arm_of(record: Record, root: Path) -> tuple[float | None, str]:
    """Percent and arm of ``PROTOCOL/PERCENT/ARM[/SEED]/trial_K``."""
    assert record.folder is not None  # it was read from there
    parts = record.folder.relative_to(root.resolve()).parts
    if len(parts) < 4:
        return None, ""
    try:
        return float(parts[1]), parts[2]
    except ValueError:
        return None, parts[2]


def _protocol(study: Study, record: Record) -> int | None:
    for number, each in enumerate(study.protocols):
        if (record.protocol, record.variant) == (each.name, each.variant):
            return number
    return None


def _find_runs(study: Study) -> None:
    """The pretrainings by arm: that whose name is a part of the run's path."""
    for run in collect.find([study.folder]).pretrainings:
        parts = run.folder.relative_to(study.folder).parts
        arm = next((a.name for a in study.of(PRETRAINED) if a.name in parts), None)
        if arm is not None:
            study.runs.setdefault(arm, []).append(run)


def _network(trial: Record) -> tuple:
    """Which random network (drawn by the trial's seed), or which pretraining."""
    if control_of(trial):
        return (control_of(trial), trial.seed)
    return (trial.weights["sha256"], trial.pretrain.get("seed"))


def counted(trials: Sequence[Record]) -> list[int]:
    """Of how many pretrainings (or random networks) the trials are, and of how many trials each."""
    return [len(each) for each in pretrainings(trials)]


def missing(study: Study) -> list[str]:
    """What ``study.json`` promises and no record has, in sentences."""
    lines = []
    kinds = {arm.kind for arm in study.arms}
    if RANDOM not in kinds:
        lines.append("No random start is part of this study, so nothing says what is gained.")
    if PRETRAINED not in kinds:
        lines.append("No pretraining is part of this study.")
    for arm in study.arms:
        without = [share.text for share in study.shares if not study.units(arm.name, share)]
        if without:
            lines.append(f"{arm.name} is not measured with {listed(without)} of the labels.")
        for share in study.shares:
            planned, found = _planned(study, arm), counted(study.trials(arm.name, share))
            if found and planned and len(found) < planned:
                what = "pretrainings" if arm.kind == PRETRAINED else "runs"
                lines.append(
                    f"{arm.name} with {share.text} of the labels: {len(found)} of {planned} {what}."
                )
    return lines


def _planned(study: Study, arm: StudyArm) -> int:
    """How many networks of the arm were to be measured; 0 where nothing says so."""
    own = arm.facts.get("trials") or study.facts.get("trials")
    key = {PRETRAINED: arm.facts.get("pretrainings"), RANDOM: own, GIVEN: 0}[arm.kind]
    return key if isinstance(key, int) else 0


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
