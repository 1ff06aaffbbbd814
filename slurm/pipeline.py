"""The language of pipeline files: what a graph of jobs is made of, as YAML.

``configs/papers/*/*.yaml`` are such files, one for every table of a paper, and so is the demo.
docs/reproduce.md lists every key; what is wrong with a file is an InputError that names the place.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import yaml

from densessl import configs
from densessl.core.errors import InputError, unknown
from densessl.core.files import read_text
from densessl.core.text import as_written

from .jobs import RANDOM_STARTS

PAPERS = configs.FOLDER / "papers"
SUPERVISED = "supervised"
STARTS = (*RANDOM_STARTS, SUPERVISED)
PLOTS = ("threshold", "layers", "crops")  # of densessl plot, from records
OURS = ("name", "head")  # fields of Spec that no file says
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # of folders and jobs
INNER = {
    "scenes": ("train", "val", "size", "seed"),
    "show": ("image", "size", "seed"),
    "table": ("baseline", "metric", "format", "output"),
}
# Keys of numbers and truths.
NUMBERS = ("published", "trials", "together", "mini", "scenes", "size", "seed", "seeds")
TYPES = {  # of a field: what YAML gives for it, and how a message calls that
    NoneType: (NoneType, "nothing"),
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    Mapping: (dict, "a group of keys"),
    tuple: (list | tuple, "a list"),
}


Seeds = None | int | tuple  # how many, or which


@dataclass(frozen=True)
class Row:
    """One row of the table: a pretrained network, or numbers that are published alone.

    ``method`` is unique in the file. ``pretrain`` names a config, ``options`` are its ``KEY:
    VALUE``, ``data`` is what it reads (``imagenet/train``), ``start_from`` the config of the
    pretraining whose weights it starts from. ``start``: random, random_bn or supervised.
    ``weights``: official, to be named at the call. ``job``: one of the file's own, whose first
    output are the row's weights. ``transfer`` are options of this row's fine-tunings, ``protocols``
    those of the file's that it goes through (empty: all). ``name``: of its folders. ``sweep``: an
    option and a list of its values, each of which becomes a row of its own.
    ``seeds``: so many pretrainings, or those of these seeds, which are one row of the table.
    ``trials``: of this row, where it has others than its protocols.
    """

    method: str
    pretrain: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    start_from: str = ""
    start: str = ""
    weights: str = ""
    job: str = ""
    published: bool = False
    transfer: Mapping[str, Any] = field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    name: str = ""
    sweep: Mapping[str, Any] = field(default_factory=dict)
    seeds: Seeds = None
    trials: None | int = None


@dataclass(frozen=True)
class Protocol:
    """What every row is measured with: a protocol of ``densessl transfer --list``.

    ``folder``: below ``transfer/``, made of the name, the variant and the options unless it is
    said. ``together``: the trials of a row are one job. ``mini``: as ``transfer --mini``.
    ``own_data``: of custom_det and so on, ``train_json`` and so on.
    """

    name: str
    variant: None | str = None
    trials: int = 5
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: None | str = None
    together: bool = False
    mini: bool = False
    own_data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FreeJob:
    """Any command: ``run`` is a verb with its arguments, or those of ``module``.

    ``$dir`` stands for the folder of the run and ``$data`` for that of the data sets. With
    ``seeds`` it is a job for each, ``NAME-seedK``, and ``$seed`` stands for its seed; of such a job
    another one with that seed needs that one, any other all.
    """

    name: str
    run: str
    module: str = "densessl"
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    seeds: Seeds = None


@dataclass(frozen=True)
class Spec:
    """A pipeline file. ``paper`` names the table that the last job renders.

    ``seeds``: of the pretrainings of every row that says none. ``plot``: a figure of ``densessl
    plot``, one of PLOTS, that is drawn of the trials.
    """

    name: str
    head: str
    rows: tuple[Row, ...] = ()
    protocols: tuple[Protocol, ...] = ()
    paper: str = ""
    data: str = ""
    mini: bool = False
    scenes: None | Mapping[str, int] = None
    show: None | Mapping[str, Any] = None
    jobs: tuple[FreeJob, ...] = ()
    table: None | Mapping[str, Any] = None
    plot: str = ""
    seeds: Seeds = None


def seeds_of(told: Seeds, first: int = 0) -> list[int]:
    """The seeds that a file or a call tells: so many from ``first`` on, or a list; none: []."""
    if told is None:
        return []
    return list(range(first, first + told)) if isinstance(told, int) else list(told)


def built_in() -> dict[str, Path]:
    """The pipeline files that come with DenseSSL: ``setsim/table4``, …, ``demo``."""
    found = {
        file.relative_to(PAPERS).with_suffix("").as_posix(): file for file in PAPERS.rglob("*.yaml")
    }
    return dict(sorted(found.items(), key=lambda each: _in_order(each[0])))


def _in_order(name: str) -> tuple:
    paper, _, table = name.rpartition("/")
    digits = "".join(filter(str.isdigit, table))
    return paper, table.rstrip("0123456789"), int(digits) if digits else 0


def find(name: str) -> Path:
    """A pipeline file by path, or by the name of a built-in one."""
    if Path(name).is_file():
        return Path(name)
    known = built_in()
    if name in known:
        return known[name]
    raise unknown("table (no such file, and no built-in one)", name, known)


def read(name: str) -> Spec:
    """The pipeline file of that name, or at that path; InputError that names the place."""
    file = find(name)
    known = {path: each for each, path in built_in().items()}
    try:
        text = read_text(file)
        values = yaml.safe_load(as_written(text, _is_text))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{file} must hold keys (rows, protocols, …), not '{values}'")
    head = "\n".join(
        line.removeprefix("#").removeprefix(" ")
        for line in text.splitlines()
        if line.startswith("#")
    )
    return _spec(values, known.get(file, file.stem), head, str(file))


def _is_text(keys: tuple[str, ...], written: str) -> bool:
    """Whether what these keys lead to is taken as it is written. An option's value becomes a word
    of a command: it is kept where YAML would change that word."""
    if {"options", "transfer"} & set(keys[:-1]):
        changed = str(yaml.safe_load(written)) != written
        return changed and written.lower() not in ("true", "false")
    return not {*keys} & {*NUMBERS}


def _spec(values: dict, name: str, head: str, file: str) -> Spec:
    public = [each.name for each in fields(Spec) if each.name not in OURS]
    for key in values:
        if key not in public:
            raise unknown("key", key, public, file)
    if values.get("mini"):
        values.setdefault("scenes", {})
    inner = {"rows": Row, "protocols": Protocol, "jobs": FreeJob}
    for key, kind in inner.items():
        entries = values.get(key) or []
        if not isinstance(entries, list):
            raise InputError(f"{key} in {file} is a list of entries, not '{entries}'")
        parts = [_entry(kind, each, f"{key} in {file}") for each in entries]
        if kind is Row:
            parts = [row for each in parts for row in _swept(each, file)]
        values[key] = tuple(parts)
        _unique([getattr(each, "method", "") or each.name for each in parts], key, file)
    spec = _made(Spec, values | {"name": name, "head": head}, file)
    if not (spec.rows and spec.protocols) and not spec.jobs:
        raise InputError(f"{file} has nothing to do: it needs rows and protocols, or jobs")
    for seeds, where in _all_seeds(spec, file):
        check_seeds(seeds, where)
    if spec.seeds is not None and not any(row.pretrain for row in spec.rows):
        raise InputError(f"{file} has seeds, but no row is pretrained")
    if spec.plot and spec.plot not in PLOTS:
        raise unknown("plot", spec.plot, PLOTS, file)
    for row in spec.rows:
        _check_row(row, spec, file)
    named = [*((row.name, "rows") for row in spec.rows), *((job.name, "jobs") for job in spec.jobs)]
    named += [(protocol.folder, "protocols") for protocol in spec.protocols]
    for each, key in named:
        if each and not NAME.fullmatch(each):
            raise InputError(
                f"'{each}' among {key} in {file} names a folder or a job; allowed are letters, "
                "digits, '_', '-' and '.'"
            )
    for name, allowed in INNER.items():
        for key in getattr(spec, name) or {}:
            if key not in allowed:
                raise unknown("key", key, allowed, f"{name} in {file}")
    if spec.show and "image" not in spec.show:
        raise InputError(f"show in {file} has no 'image'")
    return spec


def _all_seeds(spec: Spec, file: str) -> list[tuple[Seeds, str]]:
    """What the file says of seeds, and where."""
    rows = [(row.seeds, f"'{row.method}' of rows in {file}") for row in spec.rows]
    jobs = [(job.seeds, f"'{job.name}' of jobs in {file}") for job in spec.jobs]
    return [(spec.seeds, file), *rows, *jobs]


def check_seeds(seeds: Seeds, where: str) -> None:
    """InputError unless they are a number above 0, or a list of different seeds."""
    if seeds is None or (isinstance(seeds, int) and seeds > 0):
        return
    listed = seeds if isinstance(seeds, tuple) else ()
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in listed)
    if listed and whole and min(listed) >= 0 and len(set(listed)) == len(listed):
        return
    shown = list(seeds) if isinstance(seeds, tuple) else seeds
    raise InputError(
        f"seeds in {where} is '{shown}'; allowed: how many (1 or more), or a list of different "
        "whole numbers, 0 or more"
    )


def _entry(kind: type, values: Any, where: str):
    if not isinstance(values, dict):
        raise InputError(f"an entry of {where} is a group of keys, not '{values}'")
    if "from" in values:  # a word of Python, too
        values = {("start_from" if key == "from" else key): each for key, each in values.items()}
    first = fields(kind)[0].name
    if not values.get(first):
        raise InputError(f"an entry of {where} has no '{first}': {values}")
    return _made(kind, values, f"'{values[first]}' of {where}")


def _swept(row: Row, file: str) -> list[Row]:
    """The row, or one for each value of its ``sweep``, whose ``{}`` in ``method`` is the value.

    A value with which the pretraining is that of a built-in config takes the config: its name and
    folder are shared with the tables that have it.
    """
    if not row.sweep:
        return [row]
    values = next(iter(row.sweep.values()))
    if not (row.pretrain and len(row.sweep) == 1 and isinstance(values, list) and values):
        raise InputError(
            f"sweep in '{row.method}' of {file} is '{dict(row.sweep)}'; it must be one option of "
            "the row's pretraining with a list of its values"
        )
    from densessl.pretrain import config
    from densessl.pretrain.engine.facts import config_names

    (key,) = row.sweep
    rows = []
    for value in values:
        options = {**row.options, key: value}
        cfg = config.load(row.pretrain, [str(each) for pair in options.items() for each in pair])
        known = [name for name in config_names(cfg) if row.pretrain in config.built_in()]
        own = row.pretrain if row.pretrain in known else known[0] if known else ""
        leaf = re.sub(r"[^\w.-]+", "_", f"{key.rpartition('.')[2]}_{value}".lower()).strip("_")
        named = row.name or ("" if own else Path(row.pretrain).stem)
        rows.append(
            replace(
                row,
                method=row.method.replace("{}", str(value))
                if "{}" in row.method
                else f"{row.method}, {key} {value}",
                pretrain=own or row.pretrain,
                options={} if own else options,
                name=f"{named}-{leaf}" if named else "",
                sweep={},
            )
        )
    return rows


def _made(kind: type, values: dict, where: str):
    """``kind(**values)`` with every value's type checked against its default's."""
    known = {each.name: each for each in fields(kind)}
    for key, value in values.items():
        if key not in known:
            public = ["from" if name == "start_from" else name for name in known]
            raise unknown("key", key, public, where)
        values = values | {key: _typed(known[key], value, where)}
    return kind(**values)


def _typed(one, value: Any, where: str):
    """The value, of a kind that the field takes; InputError."""
    kinds = get_args(one.type) if isinstance(one.type, UnionType) else (one.type,)
    kinds = [get_origin(kind) or kind for kind in kinds]
    for kind in kinds:
        types, _ = TYPES[kind]
        if isinstance(value, types) and not (kind is int and isinstance(value, bool)):
            return tuple(value) if kind is tuple else value
    said = " or ".join(TYPES[kind][1] for kind in kinds if kind is not NoneType)
    raise InputError(f"{one.name} in {where} is '{value}'; it must be {said}")


def _unique(names: Sequence[str], key: str, file: str) -> None:
    if double := sorted({name for name in names if names.count(name) > 1 and key != "protocols"}):
        raise InputError(f"{key} in {file}: '{double[0]}' stands there twice")


def _check_row(row: Row, spec: Spec, file: str) -> None:
    where = f"the row '{row.method}' of {file}"
    kinds = [row.pretrain, row.start, row.weights, row.job, "published" if row.published else ""]
    if len(list(filter(None, kinds))) != 1:
        raise InputError(f"{where} needs one of: pretrain, start, weights, job, published")
    if row.job and row.job not in (known := [job.name for job in spec.jobs if job.outputs]):
        raise unknown("job (with outputs)", row.job, known, where)
    if row.start and row.start not in STARTS:
        raise unknown("start", row.start, STARTS, where)
    if row.weights and row.weights != "official":
        raise InputError(
            f"{where}: weights is '{row.weights}'; allowed: official (the file is named at the "
            "call, --weights METHOD=FILE)"
        )
    if row.pretrain and not (row.data or spec.data or spec.mini):
        raise InputError(f"{where}: it is pretrained, and neither it nor the file says 'data'")
    if row.seeds is not None and not row.pretrain:
        raise InputError(f"{where} has seeds, but no pretraining that could have them")
    if (row.seeds, spec.seeds) != (None, None) and "SEED" in row.options:
        raise InputError(f"{where} has seeds and the option SEED {row.options['SEED']}; give one")
    for name in row.protocols:
        if name not in {each.name for each in spec.protocols}:
            raise unknown("protocol", name, [each.name for each in spec.protocols], where)
