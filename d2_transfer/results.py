"""The record of one trial, ``trial_<k>/result.json``: the only thing that tables read."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import yaml

from densessl.core import options
from densessl.core.errors import InputError
from densessl.core.files import read_object, walk, write_json
from densessl.core.text import read_mapping
from densessl.decoding import MAX_PIXELS

from .config import FCOS, FLOAT16

SCHEMA = 1
FILE = "result.json"

# Beginnings of metrics' names behind the task: of one class, and of all that are per cent.
OF_ONE_CLASS = ("AP-", "IoU-")
PER_CENT = ("AP", "IoU", "mIoU", "fwIoU", "mACC", "pACC", "top1", "top5", "mean_class")
ROUNDING = 1e-6  # per cent; a sum of eleven precisions may end just above 100

# Options that may differ between trials of one experiment.
NOT_PART_OF_THE_EXPERIMENT = (
    "OUTPUT_DIR",
    "SEED",
    "MODEL.WEIGHTS",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.TIMEOUT",
    "TEST.PREDICTIONS",
)
# Options that say where something lies, which changes no number: as if they were empty.
PLACES = ("FEATURES.CACHE", "KNN.CACHE", "IMPORT", "LAZY.FILE")
# Options that came after the first records, and their defaults, which leave all as it was.
ADDED = {
    "IMPORT": "",
    "LAZY.CONFIG": "",
    "LAZY.FILE": "",
    "TEST.EVALUATOR": "",
    "INPUT.RANGE": "",
    "INPUT.MAX_PIXELS": MAX_PIXELS,
    "INPUT.CHANNELS": 0,
    "INPUT.CHANNEL_FILES": "",
    "DATASETS.LABELS": "",
    "DATASETS.LABELS_SEED": 0,
    "DATASETS.TRAIN_LIST": "",
    "DATASETS.TEST_LIST": "",
    "MODEL.BACKBONE.TIMM": "",
    "SOLVER.AMP.DTYPE": FLOAT16,
    **{f"MODEL.FCOS.{name}": value for name, value in FCOS.items()},
}
# Likewise of the configs with a TASK; detectors always had them.
ADDED_TO_TASKS = {
    "TEST.SLIDING_WINDOW.ENABLED": False,
    "TEST.SLIDING_WINDOW.SIZE": 769,
    "TEST.SLIDING_WINDOW.STRIDE": 513,
}
# Options that the official main of Detectron2 has and 0.5 lacks, at what 0.5 does.
OF_MAIN_ALONE = {
    "DATALOADER.REPEAT_SQRT": True,
    "FLOAT32_PRECISION": "",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": 50,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "SOLVER.BASE_LR_END": 0.0,
    "SOLVER.NUM_DECAYS": 3,
    "SOLVER.RESCALE_INTERVAL": False,
}
NOT_EVERYWHERE = ADDED | OF_MAIN_ALONE


class WrongValue(InputError):
    """A record of ours with a value that cannot be; a file that is damaged or foreign has none."""


@dataclass
class Record:
    """What one finished trial was and what it measured.

    ``weights`` has ``path`` and ``sha256`` (the path is ``random`` and the hash empty for a random
    start); ``pretrain`` is free (``dataset``, ``epochs``, ``method``, …; empty where unknown), and
    pretrainings by one method have one ``recipe`` and a ``seed`` each;
    ``metrics`` is flat, ``bbox/AP`` → per cent, NaN where a metric is undefined, ``bbox/AP-person``
    for one class (:func:`class_of`); ``started`` and ``finished`` are ISO 8601 times as
    :func:`now` gives them; ``mini`` marks a miniature, whose numbers compare with nothing but other
    miniatures of the same configuration. ``evaluated`` has ``path`` and ``sha256`` of the trained
    model where ``--eval-only`` measured it; it is empty, and not written, for a trial. ``range``
    has the two values that became black and white in images that are not of 8 bits; it is empty,
    and not written, where there were none. ``labels`` has, where not all training images kept their
    labels, the ``amount`` that did (``10%``, or a number), the ``percent`` of all where it is
    known, and the ``seed`` that drew them.
    ``folder`` is the trial's folder; it is not written.
    """

    method: str
    weights: dict[str, str]
    pretrain: dict[str, Any]
    protocol: str
    variant: str
    seed: int
    metrics: dict[str, float]
    config_sha256: str
    versions: dict[str, str]
    started: str
    finished: str
    mini: bool = False
    schema: int = SCHEMA
    evaluated: dict[str, str] = field(default_factory=dict)
    range: list[float] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False, repr=False)


def now() -> str:
    """This moment as a record writes it: ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def save(trial_dir: str | os.PathLike, record: Record) -> Path:
    """Write ``trial_dir/result.json`` atomically and return its path.

    Write it last: the file is what says that the trial is finished.
    """
    path = Path(trial_dir) / FILE
    values = asdict(record)
    del values["folder"]
    for name in _NOT_IN_ALL:
        if not values[name]:
            del values[name]
    _check(values, path)
    values["metrics"] = {
        name: float(value) if math.isfinite(value) else None  # JSON has no NaN
        for name, value in record.metrics.items()
    }
    write_json(path, values)
    return path


def load(path: str | os.PathLike) -> Record:
    """The record in a ``result.json`` (or in a trial's folder).

    Raises InputError that names the file and the field for a missing or unreadable file, another
    schema, and a missing or unknown field; WrongValue for a value of the wrong kind or one that
    cannot be (an AP outside 0 to 100, a negative seed).
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    values = read_object(
        path, "a trial record", missing="there is no trial record", parse_constant=_no_number
    )
    _check(values, path)
    values["metrics"] = {
        _printable(name): math.nan if value is None else _number(value, name, path)
        for name, value in values["metrics"].items()
    }
    for name in ("method", "protocol", "variant"):  # shown in terminals, pages and pictures
        values[name] = _printable(values[name])
    return Record(**values, folder=path.parent)


def class_of(metric: str) -> tuple[str, str] | None:
    """Of a metric of one class its kind and the class; None for any other.

    Example: ``class_of("bbox/AP-person") == ("bbox/AP", "person")``
    """
    task, _, name = metric.partition("/")
    if not name.startswith(OF_ONE_CLASS):
        return None
    kind, _, found = name.partition("-")
    return f"{task}/{kind}", found


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _number(value: int | float, name: str, path: Path) -> float:
    if _is_finite(value):
        return float(value)
    raise WrongValue(f"{path}: 'metrics.{name}' is not finite; an undefined metric is null")


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; an undefined metric is null")


def collect(
    dirs: Iterable[str | os.PathLike], skip: Callable[[InputError], object] | None = None
) -> list[Record]:
    """All records in and below the folders (or files), each once; links are followed.

    In the order of ``dirs``, and by path within one. Raises InputError for a folder that does not
    exist, and for a damaged or foreign ``result.json``; where ``skip`` is given it gets that error
    instead, and the file is left out. WrongValue is raised in any case: an average without a trial
    that is there would be another number. An empty list means that none was found.
    """
    files: dict[Path, None] = {}  # a set that keeps its order
    for named in map(Path, dirs):
        if not named.exists():
            raise InputError(f"{named}: no such folder")
        below = (Path(at, FILE) for at, _, names in walk(named) if FILE in names)
        found = [named] if named.is_file() else sorted(below)
        files |= dict.fromkeys(path.resolve() for path in found)
    records = []
    for path in files:
        try:
            records.append(load(path))
        except WrongValue:
            raise
        except InputError as error:
            if skip is None:
                raise
            skip(error)
    return records


def found_in(dirs: Sequence[str | os.PathLike]) -> list[Record]:
    """:func:`collect`, with damaged and foreign files named in the log; InputError without any."""
    skipped: list[InputError] = []
    records = collect(dirs, skipped.append)
    for error in skipped:
        logging.getLogger("densessl").warning("skipped: %s", error)
    if not records:
        but = f" ({len(skipped)} files of that name are no records)" if skipped else ""
        raise InputError(
            f"no trial_<k>/result.json in or below {', '.join(map(str, dirs))}{but}. Trials make "
            "them: densessl transfer WEIGHTS --protocol voc_det_c4 --trials 5 -o DIR"
        )
    return records


def as_dict(cfg) -> dict:
    """A config as plain values, as its YAML has them."""
    return yaml.safe_load(cfg.dump())


def config_fingerprint(config: dict[str, Any]) -> str:
    """SHA-256 over a resolved config, without the options that may differ between trials.

    Equal for the config in memory and for the same one read back from ``config.yaml`` (tuples and
    lists are one thing, and so are the orders of keys).
    """
    text = json.dumps(flat(config), sort_keys=True, allow_nan=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """``{"SOLVER.BASE_LR": 0.02, …}`` of a nested config, less what may differ between trials, and
    less what configs of before, or of Detectron2's other version, lack where it changes nothing."""
    absent = NOT_EVERYWHERE | (ADDED_TO_TASKS if "TASK" in config else {})
    return {
        name: "" if name in PLACES else _plain(value)
        for name, value in options.flat(config).items()
        if name not in NOT_PART_OF_THE_EXPERIMENT and not (name in absent and absent[name] == value)
    }


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def config_of(record: Record) -> dict[str, Any] | None:
    """The trial's resolved config, flat, from the ``config.yaml`` beside it; None without one."""
    path = record.folder and record.folder / "config.yaml"
    if not path or not path.is_file():
        return None
    return flat(read_mapping(path, "a config"))


_KINDS = {
    "schema": int,
    "method": str,
    "weights": dict,
    "pretrain": dict,
    "protocol": str,
    "variant": str,
    "seed": int,
    "metrics": dict,
    "config_sha256": str,
    "versions": dict,
    "started": str,
    "finished": str,
    "mini": bool,
    "evaluated": dict,
    "range": list,
    "labels": dict,
}
_NOT_IN_ALL = ("evaluated", "range", "labels")  # of every trial, and in records of before
assert set(_KINDS) == {each.name for each in fields(Record)} - {"folder"}


def _check(values: dict[str, Any], path: Path) -> None:
    if values.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema is {values.get('schema')!r}; this DenseSSL reads schema {SCHEMA}"
        )
    if missing := [name for name in _KINDS if name not in values and name not in _NOT_IN_ALL]:
        raise InputError(f"{path}: the field '{missing[0]}' is missing")
    if surplus := sorted(set(values) - set(_KINDS)):
        raise InputError(f"{path}: unknown field '{surplus[0]}'")
    for name, value in values.items():
        kind = _KINDS[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise WrongValue(f"{path}: '{name}' is {value!r}, expected {kind.__name__}")
    for of in ("weights", "evaluated"):
        for name in ("path", "sha256"):
            value = values[of].get(name) if values.get(of) or of == "weights" else ""
            if not isinstance(value, str):
                raise WrongValue(f"{path}: '{of}.{name}' is {value!r}, expected text")
    for name, value in values["metrics"].items():
        _check_metric(name, value, path)
    if values["seed"] < 0:
        raise WrongValue(f"{path}: 'seed' is {values['seed']}; allowed: 0 or more")
    for name in ("epochs", "images"):
        value = values["pretrain"].get(name)
        if isinstance(value, int | float) and not value >= 0:
            raise WrongValue(f"{path}: 'pretrain.{name}' is {value!r}; allowed: 0 or more")
    for name in ("started", "finished"):
        try:
            datetime.fromisoformat(values[name])
        except ValueError:
            raise WrongValue(f"{path}: '{name}' is '{values[name]}', not an ISO time") from None


def _check_metric(name: str, value: object, path: Path) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongValue(f"{path}: 'metrics.{name}' is {value!r}, expected a number or null")
    per_cent = (name.partition("/")[2] or name).startswith(PER_CENT)
    if per_cent and _is_finite(value) and not -ROUNDING <= value <= 100 + ROUNDING:
        raise WrongValue(
            f"{path}: 'metrics.{name}' is {value:g}; allowed: 0 to 100 (per cent), or null where "
            "it is undefined"
        )
