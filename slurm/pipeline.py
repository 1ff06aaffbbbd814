"""Pipeline files: the built-in ones by name, and what is read of a file.

``spec.py`` has their language. What is wrong with a file is an InputError that names the path.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from densessl import configs
from densessl.core import options
from densessl.core.errors import InputError, unknown
from densessl.core.text import as_written, read_own_yaml, read_yaml
from densessl.d2_transfer import flags

from .spec import (
    INNER,
    ORDERS,
    PAPER,
    PLOTS,
    SECTION,
    STARTS,
    FreeJob,
    ProtocolSpec,
    RowSpec,
    Seeds,
    Spec,
)

PAPERS = configs.FOLDER / "papers"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # of folders and jobs
# Keys of numbers and truths.
NUMBERS = ("published", "trials", "together", "mini", "scenes", "size", "seed", "seeds")
ENTRIES = {"rows": RowSpec, "protocols": ProtocolSpec, "jobs": FreeJob}  # of the lists in a file
OPTIONS = {
    RowSpec: options.of_class(RowSpec, start=STARTS),
    ProtocolSpec: options.of_class(ProtocolSpec),
    FreeJob: options.of_class(FreeJob),
    Spec: options.of_class(Spec, plot=PLOTS, order=ORDERS),
}
FLAGS = {  # of transfer, in a protocol beside those that are its keys
    "own_data": flags.OWN,
    "flags": tuple(
        name
        for name in flags.OF_JOBS
        if name not in (*OPTIONS[ProtocolSpec], *flags.OWN, "protocol", "output_dir", "data")
    ),
}
OPTIONS[RowSpec]["from"] = OPTIONS[RowSpec].pop("start_from")  # a word of Python, too
del OPTIONS[Spec]["name"]  # it is that of the file


@cache
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
    if os.path.isfile(name):
        return Path(name)
    known = built_in()
    if name in known:
        return known[name]
    raise unknown("table (no such file, and no built-in one)", name, known)


def read(name: str) -> Spec:
    """The pipeline file of that name, or at that path; InputError that names the path."""
    file = find(name)
    known = {path: each for each, path in built_in().items()}
    return _spec(_values(file), known.get(file, file.stem), str(file))


def description(name: str) -> str:
    """What the built-in pipeline file of that name says it is."""
    return str(read_own_yaml(built_in()[name]).get("description", ""))


def _values(file: Path) -> dict[str, Any]:
    """What the file holds, its words as they are written."""
    values = read_yaml(file, lambda text: yaml.safe_load(as_written(text, _is_text)))
    if not isinstance(values, dict):
        raise InputError(f"{file} must hold keys (rows, protocols, …), not '{values}'")
    return values


def _is_text(keys: tuple[str, ...], written: str) -> bool:
    """Whether what these keys lead to is taken as it is written. An option's value becomes a word
    of a command: it is kept where YAML would change that word."""
    if {"options", "transfer"} & set(keys[:-1]):
        changed = str(yaml.safe_load(written)) != written
        return changed and written.lower() not in ("true", "false")
    return not {*keys} & {*NUMBERS}


def _spec(values: dict, name: str, file: str) -> Spec:
    options.only(values, (*OPTIONS[Spec], "sections"), file)
    if "sections" in values:
        values["rows"] = [*_rows_of(values.pop("sections"), "rows" in values, file)]
    if values.get("mini"):
        values.setdefault("scenes", {})
    for key, kind in ENTRIES.items():
        entries = OPTIONS[Spec][key].typed(values.get(key) or [], key, file)
        parts = [_entry(kind, each, f"{key} in {file}") for each in entries]
        if kind is RowSpec:
            parts = [row for each in parts for row in _swept(each, file)]
        values[key] = tuple(parts)
    spec = Spec(name, **options.read(values, OPTIONS[Spec], file))
    _check(spec, file)
    for row in spec.rows:
        _check_row(row, spec, file)
    return spec


def _rows_of(sections: Any, beside: bool, file: str) -> Iterator[Any]:
    """The rows of all sections of a table, in their order."""
    if beside or not isinstance(sections, list):
        raise InputError(f"{file} has either rows, or a list of sections with rows in each")
    for section in sections:
        where = f"sections in {file}"
        if not isinstance(section, dict) or not isinstance(section.get("rows"), list):
            raise InputError(f"an entry of {where} has a list of rows, not '{section}'")
        options.only(section, SECTION, where)
        yield from section["rows"]


def _check(spec: Spec, file: str) -> None:
    """InputError for what is wrong with the file as a whole."""
    methods, jobs = [row.method for row in spec.rows], [job.name for job in spec.jobs]
    for key, names in (("rows", methods), ("jobs", jobs)):
        if double := sorted(name for name, count in Counter(names).items() if count > 1):
            raise InputError(f"{key} in {file}: '{double[0]}' stands there twice")
    if not (spec.rows and spec.protocols) and not spec.jobs:
        raise InputError(f"{file} has nothing to do: it needs rows and protocols, or jobs")
    check_seeds(spec.seeds, file)
    for row in spec.rows:
        check_seeds(row.seeds, f"'{row.method}' of rows in {file}")
    for job in spec.jobs:
        check_seeds(job.seeds, f"'{job.name}' of jobs in {file}")
    if spec.seeds is not None and not any(row.pretrain for row in spec.rows):
        raise InputError(f"{file} has seeds, but no row is pretrained")
    folders = [protocol.folder for protocol in spec.protocols if protocol.folder]
    named = {"rows": [row.name for row in spec.rows], "jobs": jobs, "protocols": folders}
    for key, names in named.items():
        for name in filter(None, names):
            if not NAME.fullmatch(name):
                raise InputError(
                    f"'{name}' among {key} in {file} names a folder or a job; allowed are letters, "
                    "digits, '_', '-' and '.'"
                )
    for key, allowed in INNER.items():
        options.only(getattr(spec, key) or {}, allowed, f"{key} in {file}")
    if spec.show and "image" not in spec.show:
        raise InputError(f"show in {file} has no 'image'")


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
    first = fields(kind)[0].name
    if not values.get(first):
        raise InputError(f"an entry of {where} has no '{first}': {values}")
    where = f"'{values[first]}' of {where}"
    read = options.read(values, OPTIONS[kind], where)
    for key, names in FLAGS.items():
        if key in read:
            read[key] = flags.read(read[key], names, f"{key} of {where}")
    return kind(**{("start_from" if key == "from" else key): each for key, each in read.items()})


def _swept(row: RowSpec, file: str) -> list[RowSpec]:
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


def _check_row(row: RowSpec, spec: Spec, file: str) -> None:
    where = f"the row '{row.method}' of {file}"
    kinds = [row.pretrain, row.start, row.weights, row.job, row.published is True]
    if len(list(filter(None, kinds))) != 1:
        raise InputError(f"{where} needs one of: pretrain, start, weights, job, published")
    if isinstance(row.published, Mapping):
        options.only(row.published, PAPER, f"published of {where}")
    if row.job and row.job not in (known := [job.name for job in spec.jobs if job.outputs]):
        raise unknown("job (with outputs)", row.job, known, where)
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
