"""From a pipeline file to its jobs: pretrainings, conversions, trials and the table.

In the folder of a run: ``pretrain/NAME``, ``weights/NAME.pkl``, ``transfer/PROTOCOL/NAME/trial_k``
and ``tables/``, NAME being that of the pretraining's config. So the tables of one folder share what
they have in common. A folder that another config of that name has begun is left alone: the new
one's is ``NAME-HASH``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError, unknown
from densessl.core.files import unmade_when_refused

from .building import Builder
from .data import Data, check
from .graph import Finished, Job, in_order
from .spec import Call, RowSpec, Spec


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file's jobs in a folder.

    ``left_out`` are the rows that have no job: their numbers are published alone. ``reads`` are the
    data sets (``imagenet/train``, ``VOC2007``), ``configs`` those of the fine-tunings that read
    them, ``results`` the folders of trials.
    """

    spec: Spec
    folder: Path
    jobs: tuple[Job, ...]
    data: Data
    reads: tuple[str, ...]
    left_out: tuple[RowSpec, ...]
    configs: tuple[Any, ...]
    results: tuple[Path, ...]
    mini: bool

    def prepare(self) -> None:
        """Check the data and make the folders that jobs take for granted.

        One InputError says everything that is missing, another what is wrong with what is there.
        """
        if missing := self.data.missing(self.reads):
            raise InputError(missing_data(missing))
        with unmade_when_refused(self.data.home):
            links = self.data.link(self.reads)
            try:
                if len(Finished(self.jobs, self.folder).of_all()) < len(self.jobs):
                    check(self.configs, self.data.home)
            except InputError:
                for link in links:
                    link.unlink()
                raise
        for folder in self.results:  # the table names them, also those of failed trials
            folder.mkdir(parents=True, exist_ok=True)

    def is_done(self) -> Callable[[str], bool]:
        """Which jobs are finished now."""
        return Finished(self.jobs, self.folder).of_all().__contains__


def missing_data(missing: Sequence[str]) -> str:
    """One message on all data sets that are not there."""
    return (
        "data sets are missing:\n  "
        + "\n  ".join(missing)
        + "\nName the folder that holds all with --data DIR, or one with --data NAME=DIR "
        "(page 'Data' of the documentation says what lies in each); --mini needs none"
    )


def expand(spec: Spec, call: Call) -> Pipeline:
    """The jobs of ``spec``, in the order pretraining, conversion, trials, plot, table.

    Raises InputError for what is wrong with any config, option, weights file or label.
    """
    for method in call.weights:
        if method not in (known := [row.method for row in spec.rows]):
            raise unknown("row", method, known, "--weights METHOD=FILE")
    if call.seeds is not None and not any(row.pretrain for row in spec.rows):
        raise InputError(f"--seeds {call.seeds}: no row of {spec.name} is pretrained")
    build = Builder(spec, call)
    for row in spec.rows:
        build.add_row(row)
    build.add_rest()
    _check_needs(build.all_jobs(), spec)
    jobs = build.in_order()
    build.data.check_names(build.reads)
    return Pipeline(
        spec=spec,
        folder=build.folder,
        jobs=jobs,
        data=build.data,
        reads=tuple(build.reads),
        left_out=tuple(build.left_out),
        configs=tuple(build.configs.values()),
        results=tuple(build.results),
        mini=build.mini,
    )


def _check_needs(jobs: Sequence[Job], spec: Spec) -> None:
    """InputError for a job of one's own that waits for one that is not there, or for itself."""
    names = [job.name for job in jobs]
    known = {*names, *(free.name for free in spec.jobs)}
    for free in spec.jobs:
        for need in free.needs:
            if need not in known:
                raise unknown("job", need, names, f"needs of '{free.name}' in {spec.name}")
    try:
        in_order(jobs)
    except ValueError as error:
        raise InputError(f"{spec.name}: {error}") from None
