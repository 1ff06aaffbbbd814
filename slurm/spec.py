"""The language of pipeline files, and what a call adds: what a graph of jobs is made of.

``configs/papers/*/*.yaml`` are such files, one for every table of a paper, and so is the demo.
docs/reproduce.md lists every key; :func:`pipeline.read` reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .data import Data
from .jobs import RANDOM_STARTS

SUPERVISED = "supervised"
STARTS = (*RANDOM_STARTS, SUPERVISED)
PLOTS = ("threshold", "layers", "crops")  # of densessl plot, from records
ORDERS = (SEEDS, LONGEST) = ("seeds", "longest")
PAPER = ("method", "label", "data", "epochs", "condition", "options", "also")  # of a row there
INNER = {  # the keys of groups of keys
    "scenes": ("train", "val", "size", "seed"),
    "show": ("image", "size", "seed"),
    "table": ("baseline", "metric", "format", "output"),
    "layout": ("title", "cite", "published", "first", "facts", "decimals", "baseline", "notes"),
}
SECTION = ("title", "baseline", "rows")


Seeds = None | int | tuple  # how many, or which


@dataclass(frozen=True)
class RowSpec:
    """One row of the table: a pretrained network, or numbers that are published alone.

    ``method`` is unique in the file. ``pretrain`` names a config, ``options`` are its ``KEY:
    VALUE``, ``data`` is what it reads (``imagenet/train``), ``start_from`` the config of the
    pretraining whose weights it starts from. ``start``: random, random_bn or supervised.
    ``weights``: official, to be named at the call. ``job``: one of the file's own, whose first
    output are the row's weights. ``transfer`` are options of this row's fine-tunings, ``protocols``
    those of the file's that it goes through (empty: all). ``name``: of its folders. ``sweep``: an
    option and a list of its values, each of which becomes a row of its own.
    ``seeds``: so many pretrainings, or those of these seeds, which are one row of the table.
    ``trials``: of this row, where it has others than its protocols. ``published``: true for a row
    whose numbers are published alone; else how the paper has the row, where that differs (PAPER).
    """

    method: str
    pretrain: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    start_from: str = ""
    start: str = ""
    weights: str = ""
    job: str = ""
    published: bool | Mapping[str, Any] = False
    transfer: Mapping[str, Any] = field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    name: str = ""
    sweep: Mapping[str, Any] = field(default_factory=dict)
    seeds: Seeds = None
    trials: None | int = None


@dataclass(frozen=True)
class ProtocolSpec:
    """What every row is measured with: a protocol of ``densessl transfer --list``.

    ``folder``: below ``transfer/``, made of the name, the variant and the options unless it is
    said. ``together``: the trials of a row are one job. ``mini``: as ``transfer --mini``.
    ``own_data``: of custom_det and so on, ``train_json`` and so on. ``flags``: other flags of
    ``densessl transfer`` by name, ``seed`` and ``keep_batch``. Of a paper's table:
    ``columns``, the metrics by their heads by the group of columns, and ``requires``, what the
    config of a trial must say to stand there (else its ``options``).
    """

    name: str
    variant: None | str = None
    trials: int = 5
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: None | str = None
    together: bool = False
    mini: bool = False
    own_data: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)


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
    plot``, one of PLOTS, that is drawn of the trials. ``description`` and ``cost`` are for people.
    ``layout``: of a paper's own table, what ``densessl table --paper`` shows around the numbers.
    ``order`` of the jobs: ``seeds``, those of the first seed of every row, of the second, …, so
    that a graph that is stopped half-way has as many pretrainings of each row; or ``longest``, what
    has the most jobs in a row behind it first, so that jobs side by side end together.
    """

    name: str
    description: str = ""
    cost: str = ""
    rows: tuple[RowSpec, ...] = ()
    protocols: tuple[ProtocolSpec, ...] = ()
    paper: str = ""
    data: str = ""
    mini: bool = False
    scenes: None | Mapping[str, int] = None
    show: None | Mapping[str, Any] = None
    jobs: tuple[FreeJob, ...] = ()
    table: None | Mapping[str, Any] = None
    plot: str = ""
    seeds: Seeds = None
    layout: None | Mapping[str, Any] = None
    order: str = SEEDS


@dataclass(frozen=True)
class Call:
    """What the call adds to a pipeline file.

    ``weights``: a file by the row's method. ``seeds``: how many pretrainings of every row (None: as
    the file says). ``trials`` (None: as the file says) and ``mini`` are for all protocols.
    ``gpus`` of each of ``nodes`` pretrain, of one node fine-tune; 0: the CPU. ``local``: the jobs
    run here. ``pretrain`` and ``transfer`` are further ``KEY VALUE`` pairs of these verbs,
    ``scenes`` other numbers of images.
    """

    folder: Path
    data: Data
    weights: Mapping[str, str] = field(default_factory=dict)
    seeds: int | None = None
    trials: int | None = None
    mini: bool = False
    nodes: int = 1
    gpus: int = 8
    local: bool = False
    pretrain: Sequence[str] = ()
    transfer: Sequence[str] = ()
    scenes: Mapping[str, int] = field(default_factory=dict)


def seeds_of(seeds: Seeds, first: int = 0) -> list[int]:
    """The seeds that a file or a call names: so many from ``first`` on, or a list; none: []."""
    if seeds is None:
        return []
    return list(range(first, first + seeds)) if isinstance(seeds, int) else list(seeds)
