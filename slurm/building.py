"""The jobs of a pipeline file, row by row; :func:`expansion.expand` puts them together."""

import hashlib
import math
import re
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError
from densessl.core.files import sha256
from densessl.core.home import expand
from densessl.core.text import read_mapping
from densessl.d2_transfer import flags, own_data
from densessl.d2_transfer.protocols import DETECTION, find
from densessl.d2_transfer.tables import layouts

from . import file_jobs
from . import jobs as making
from .data import Data, folders_of, parts_of
from .file_jobs import as_words
from .graph import Job, longest_behind
from .spec import LONGEST, Call, FreeJob, ProtocolSpec, RowSpec, Spec, seeds_of

TWIN = "_scenes"
Start = tuple[str, tuple[str, ...], str]  # weights: their file, the jobs to wait for, their name
STAND_IN = "imagenet/train"  # of the scenes, for whatever a pretraining reads


class Builder:
    """Collects the jobs of a pipeline by their kind; one that is there already is shared.

    ``drawn`` names the job that draws the scenes, if any.
    """

    def __init__(self, spec: Spec, call: Call):
        self.spec, self.call = spec, call
        self.folder = call.folder.absolute()
        self.mini = spec.mini or call.mini
        kinds = ("scenes", "pretrain", "convert", "show", "transfer", "free", "plot", "table")
        self.jobs: dict[str, dict[str, Job]] = {kind: {} for kind in kinds}
        self.turn: float = 0  # of the seed whose jobs are made, among its row's
        self.turns: dict[str, float] = {}  # of each job
        self.hashes: dict[Path, str] = {}  # of the config that a folder of this graph is for
        self.left_out: list[RowSpec] = []
        self.results: dict[Path, str] = {}  # the folder of trials, and the method of its row
        self.reads: dict[str, None] = {}
        self.configs: dict[str, Any] = {}  # that read real data, by hash
        self.data = call.data
        self.drawn: tuple[str, ...] = ()
        if spec.scenes is not None or self.mini:
            scenes = file_jobs.scenes(spec, self.folder, call.data, call.scenes)
            (root,) = (output.parent for output in scenes.outputs)
            self.data, self.drawn = Data(root, root), (self._add("scenes", scenes),)

    def add_row(self, row: RowSpec) -> None:
        """The row's jobs, or a note that it has none; InputError that names the row."""
        try:
            self._add_row(row)
        except InputError as error:
            raise InputError(f"row '{row.method}' of {self.spec.name}: {error}") from None

    def _add_row(self, row: RowSpec) -> None:
        if (given := self.call.weights.get(row.method)) is not None:
            starts = [partial(self._given, row, given)]
        elif row.start in making.RANDOM_STARTS:
            starts = [partial(self._random, row)]
        elif row.pretrain:
            starts = [partial(self._pretrained, row, seed) for seed in self._seeds(row)]
        elif row.job:
            free = next(each for each in self.spec.jobs if each.name == row.job)
            starts = [partial(self._of_job, row, free, seed) for seed in _seeds_of(free)]
        else:
            self.left_out.append(row)
            return
        for self.turn, found in enumerate(starts):
            start, needs, key = found()
            for protocol in self.spec.protocols:
                if protocol.name in (row.protocols or [protocol.name]):
                    self._measure(row, protocol, start, needs, key)
        self.turn = math.inf

    def add_rest(self) -> None:
        """The jobs that belong to no row: the file's own, the plot, the table."""
        for free in self.spec.jobs:
            for seed in _seeds_of(free):
                self._add_free(free, seed)
        trials = tuple(self.jobs["transfer"])
        if self.results and self.spec.plot:
            plot = file_jobs.plot(self.spec, self.folder, self.results, trials, self.mini)
            self._add("plot", plot)
        if self.results:
            table = file_jobs.table(self.spec, self.folder, self.results, trials, self.mini)
            self._add("table", table)

    def all_jobs(self) -> list[Job]:
        """By their kinds."""
        return [job for kind in self.jobs.values() for job in kind.values()]

    def in_order(self) -> tuple[Job, ...]:
        """All jobs, in the file's ``order``: what is of no seed comes last; of jobs with as many
        behind them the file's own come first. What they need must be there."""
        jobs = self.all_jobs()
        if self.spec.order == LONGEST:
            behind = longest_behind(jobs)
            own = self.jobs["free"]
            return tuple(sorted(jobs, key=lambda job: (-behind[job.name], job.name not in own)))
        return tuple(sorted(jobs, key=lambda job: self.turns[job.name]))

    def _add_free(self, free: FreeJob, seed: int | None) -> Job:
        job = file_jobs.free(free, seed, self.spec, self.folder, self.data.home)
        self._add("free", job)
        return job

    def _of_job(self, row: RowSpec, free: FreeJob, seed: int | None) -> Start:
        """Weights that a job of the file's own makes, converted; as :meth:`_given`.

        Their recipe is the job's command, so that those of several seeds are one row.
        """
        job = self._add_free(free, seed)
        key = (row.name or _slug(row.method)) + ("" if seed is None else f"-seed{seed}")
        recipe = hashlib.sha256(f"{free.module} {free.run}".encode()).hexdigest()[:12]
        facts = {"recipe": f"{free.name}-{recipe}", "seed": seed or 0}
        if reads := row.data or self.spec.data:
            facts["dataset"] = reads
        return self._converted(
            key, job.outputs[0], ".pkl", needs=(job.name,), method=row.method, facts=facts
        )

    def _random(self, row: RowSpec) -> Start:
        return row.start, self.drawn, row.start

    def _given(self, row: RowSpec, file: str) -> Start:
        """Weights from elsewhere, converted."""
        if not Path(file).is_file():
            raise InputError(f"--weights: the file '{file}' of '{row.method}' is not there")
        path = Path(file).absolute()
        return self._converted(
            f"{row.name or _slug(row.method)}-{sha256(path)[:8]}",
            path,
            ".pth" if self._classifies() else ".pkl",  # .pth: of a ViT, too
            method=layouts.known_as(row.method),
            facts=_facts(self.spec.paper, row.method),
        )

    def _converted(self, key: str, source: Path, ending: str, **how: Any) -> Start:
        output = self.folder / "weights" / f"{key}{ending}"
        job = making.convert_job(source, output, name=f"convert-{key}", **how)
        return str(output), (self._add("convert", job), *self.drawn), key

    def _seeds(self, row: RowSpec) -> list[int | None]:
        """Those of the row's pretrainings; None: the config's own."""
        from densessl.pretrain import config as pretraining

        seeds = self.call.seeds or row.seeds or self.spec.seeds
        if seeds is None:
            return [None]
        words = [*as_words(row.options), *self.call.pretrain]
        if "SEED" in words[::2]:
            raise InputError(f"it has seeds and SEED {words[words.index('SEED') + 1]}; give one")
        return list(seeds_of(seeds, pretraining.load(row.pretrain, words).SEED))

    def _pretrained(self, row: RowSpec, seed: int | None) -> Start:
        """The row's pretraining with a seed, and what comes of it."""
        job, vit = self._pretrain(row, row.pretrain, row.options, row.name, seed)
        key = job.outputs[0].parent.name
        if self.spec.show and seed == self._seeds(row)[0]:  # one picture of a row
            self._add("show", file_jobs.views(self.spec, self.folder, self.data, job))
        return self._converted(key, job.outputs[0], ".pth" if vit else ".pkl", needs=(job.name,))

    def _pretrain(
        self, row: RowSpec, config: str, options: Mapping[str, Any], name: str, seed: int | None
    ) -> tuple[Job, bool]:
        """The job of a pretraining, and whether it is of a ViT.

        With the config's own seed it is the job of a file without seeds, so that such a run is one
        of them; what it starts from is pretrained with its seed, too.
        """
        from densessl.pretrain import config as pretraining

        needs, start = self.drawn, None
        if row.start_from and config == row.pretrain:
            before, _ = self._pretrain(row, row.start_from, {}, "", seed)
            needs, start = (*needs, before.name), before.outputs[0]
        words, key = as_words(options), name or _slug(Path(config).stem)
        reads = expand(row.data or self.spec.data)
        nodes, gpus = self.call.nodes, self.call.gpus
        if self.mini:
            words = [*as_words(pretraining.sizes_kept(config)), *words]
            reads = STAND_IN
            config, key = f"{config}{TWIN}", name or f"{key}{TWIN}"
            nodes, gpus = 1, min(gpus, 1)
        if not self.drawn:
            self.reads |= dict.fromkeys(parts_of(reads))
        if seed not in (None, pretraining.load(config, words).SEED):
            words, key = [*words, "SEED", str(seed)], f"{key}-seed{seed}"
        words = ["DATA.PATH", self.data.path(reads), *words, *self.call.pretrain]

        make = partial(making.pretrain_job, config, words, nodes=nodes, gpus=gpus, needs=needs)
        make = partial(make, local=self.call.local, start=start)
        folder = self.folder / "pretrain" / key
        asked = pretraining.load(config, words)
        hash_of = partial(making.pretraining_hash, made_here=start is not None, asked=asked)
        folder = self._own(folder, make(folder).content[-1], hash_of)
        job = make(folder, name=f"pretrain-{folder.name}")
        self._add("pretrain", job)
        return job, asked.BACKBONE.NAME.startswith("vit")

    def _measure(
        self, row: RowSpec, protocol: ProtocolSpec, start: str, needs: tuple, key: str
    ) -> None:
        """The trials of a row under a protocol."""
        mini = self.mini or protocol.mini
        known, variant = find(protocol.name)[0], protocol.variant
        if mini and known.stand_in:
            variant = known.stand_in  # what scenes have
        options = {**protocol.options, **row.transfer}
        if mini:
            options.pop("DATASETS.CLASSES", None)  # scenes have classes of their own
        words = [*as_words(options), *self.call.transfer]
        gpus = min(self.call.gpus, 1) if mini else self.call.gpus
        given = {"mini": mini, **protocol.flags, "data": self.data.home, **protocol.own_data}
        for name in {*flags.PATHS} & {*given}:
            given[name] = str(Path(expand(given[name])).absolute())
        own = own_data.of(known, given)
        how = flags.of_config(given)
        found = making.resolved(protocol.name, variant, words, gpus=gpus, custom=own, **how)
        if not self.drawn:
            folders = folders_of(found.cfg)
            self.data.require_on_disk(folders, protocol.name)
            self.reads |= dict.fromkeys(folders)
            self.configs[found.config_hash] = found.cfg
        under = protocol.folder
        if under is None:
            under = "_".join(filter(None, (known.name, found.variant)))
            for name, value in options.items():
                under += f"-{_slug(name.split('.')[-1])}_{_slug(value)}"
            under += "-mini" if self.mini else ""
        folder = self.folder / "transfer" / under / key
        folder = self._own(folder, found.config_hash, making.transfer_hash)
        if folder in self.results:
            return  # in miniature, two protocols may be one
        self.results[folder] = row.method
        trials = making.transfer_jobs(
            start,
            protocol.name,
            found.variant or None,
            self._trials(row, protocol),
            folder,
            name="-".join(filter(None, ("transfer", under, folder.name))),
            options=words,
            gpus=gpus,
            needs=needs,
            own=own,
            together=protocol.together,
            **given,
        )
        for job in trials:
            self._add("transfer", job)

    def _trials(self, row: RowSpec, protocol: ProtocolSpec) -> int:
        if self.call.trials is not None:
            return self.call.trials
        if self.call.mini:
            return 1
        return protocol.trials if row.trials is None else row.trials

    def _classifies(self) -> bool:
        """Whether no protocol needs Detectron2's weights."""
        return all(find(each.name)[0].family != DETECTION for each in self.spec.protocols)

    def _add(self, kind: str, job: Job) -> str:
        there = [jobs[job.name] for jobs in self.jobs.values() if job.name in jobs]
        if there and there != [job]:
            raise InputError(
                f"{self.spec.name}: two different jobs are called '{job.name}': "
                f"{shlex.join(map(str, there[0].argv))} and {shlex.join(map(str, job.argv))}"
            )
        self.jobs[kind][job.name] = job
        self.turns.setdefault(job.name, self.turn)
        return job.name

    def _own(self, folder: Path, wanted: str, hash_of: Callable[[Mapping], str]) -> Path:
        """``folder``, or ``folder-HASH`` where another config has taken or begun it.

        ``hash_of`` gives the hash of what a run's ``config.yaml`` holds.
        """
        taken = self.hashes.get(folder)
        if taken is None and (folder / "config.yaml").is_file():
            try:
                taken = hash_of(read_mapping(folder / "config.yaml", "a config"))
            except (InputError, KeyError, AttributeError, TypeError):
                taken = "unreadable"
        if taken not in (None, wanted):
            folder = folder.with_name(f"{folder.name}-{wanted[:8]}")
        self.hashes[folder] = wanted
        return folder


def _seeds_of(free: FreeJob) -> list[int | None]:
    return [*seeds_of(free.seeds)] or [None]


def _facts(paper: str | None, method: str) -> dict[str, Any]:
    """What a paper's row was pretrained on, as records say it; nothing where it has no such row."""
    rows = layouts.find(paper).rows if paper else ()
    for row in (row for row in rows if method in (row.method, row.label)):
        data = layouts.aliases()["data"].get(row.data)
        if data is None:
            continue
        classes = f" ({data['classes']})" if "classes" in data else ""
        epochs = {"epochs": row.epochs} if row.epochs else {}
        return {"dataset": f"{data['names'][0]}{classes}", **epochs}
    return {}


def _slug(text: Any) -> str:
    """Of a text, what a folder may be called: small letters, digits, ``_``, ``-``."""
    return re.sub(r"[^a-z0-9_.-]+", "_", str(text).lower()).strip("_")
