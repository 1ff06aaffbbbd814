"""The jobs of a pipeline file, row by row; :func:`expansion.expand` puts them together."""

import hashlib
import math
import re
import shlex
import string
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from densessl.d2_transfer import own_data
from densessl.d2_transfer.tables import layouts

from densessl.core.errors import InputError, unknown
from densessl.core.files import sha256
from densessl.core.home import expand

from . import jobs as making
from .data import Data, folders_of
from .graph import Job
from .pipeline import FreeJob, Protocol, Row, Spec, seeds_of

TWIN = "_scenes"
SCENES = {"train": 256, "val": 64, "size": 128, "seed": 0}
STAND_IN = "imagenet/train"  # of the scenes, for whatever a pretraining reads
VARIABLE = "DETECTRON2_DATASETS"
MINI_VARIANT = {"finetune_cls": "voc_objects"}  # what scenes have


class Builder:
    """Collects the jobs of a pipeline by their kind; one that is there already is shared.

    ``call`` is an :class:`expansion.Call`. ``drawn`` names the job that draws the scenes, if any.
    """

    def __init__(self, spec: Spec, call):
        self.spec, self.call = spec, call
        self.folder = call.folder.absolute()
        self.mini = spec.mini or call.mini
        kinds = ("scenes", "pretrain", "convert", "show", "transfer", "free", "plot", "table")
        self.jobs: dict[str, dict[str, Job]] = {kind: {} for kind in kinds}
        self.turn: float = 0  # of the seed whose jobs are made, among its row's
        self.turns: dict[str, float] = {}  # of each job
        self.sums: dict[Path, str] = {}  # of the config that a folder of this graph is for
        self.left_out: list[Row] = []
        self.results: dict[Path, str] = {}  # the folder of trials, and the method of its row
        self.reads: dict[str, None] = {}
        self.configs: dict[str, Any] = {}  # that read real data, by sum
        self.data, self.drawn = call.data, ()
        if spec.scenes is not None or self.mini:
            self._draw_scenes()

    def add_row(self, row: Row) -> None:
        """The row's jobs, or a note that it has none; InputError that names the row."""
        try:
            self._add_row(row)
        except InputError as error:
            raise InputError(f"row '{row.method}' of {self.spec.name}: {error}") from None

    def _add_row(self, row: Row) -> None:
        if (given := self.call.weights.get(row.method)) is not None:
            starts = [partial(self._given, row, given)]
        elif row.start in making.RANDOM_STARTS:
            starts = [lambda: (row.start, self.drawn, row.start)]
        elif row.pretrain:
            starts = [partial(self._pretrained, row, seed) for seed in self._seeds(row)]
        elif row.job:
            free = next(each for each in self.spec.jobs if each.name == row.job)
            seeds = seeds_of(free.seeds) or [None]
            starts = [partial(self._of_job, row, free, seed) for seed in seeds]
        else:
            self.left_out.append(row)
            return
        for self.turn, found in enumerate(starts):
            start, needs, key = found()
            for protocol in self.spec.protocols:
                if protocol.name in (row.protocols or [protocol.name]):
                    self._measure(row, protocol, start, needs, key)
        self.turn = math.inf

    def in_turn(self) -> tuple[Job, ...]:
        """All jobs: those of the first seed of every row, of the second, …, then what is of none.

        So a graph that is stopped half-way has as many pretrainings of each row.
        """
        jobs = [job for kind in self.jobs.values() for job in kind.values()]
        return tuple(sorted(jobs, key=lambda job: self.turns[job.name]))

    def _of_job(self, row: Row, free: FreeJob, seed: int | None):
        """Weights that a job of the file's own makes, converted; as :meth:`_given`.

        Their recipe is the job's command, so that those of several seeds are one row.
        """
        job = self._add_free(free, seed)
        key = (row.name or _slug(row.method)) + ("" if seed is None else f"-seed{seed}")
        recipe = hashlib.sha256(f"{free.module} {free.run}".encode()).hexdigest()[:12]
        facts = {"recipe": f"{free.name}-{recipe}", "seed": seed or 0}
        if reads := row.data or self.spec.data:
            facts["dataset"] = reads
        return self._converted(key, job.outputs[0], (job.name,), ".pkl", row.method, facts)

    def _seeds(self, row: Row) -> list[int | None]:
        """Those of the row's pretrainings; None: the config's own."""
        from densessl.pretrain import config as pretraining

        told = self.call.seeds or row.seeds or self.spec.seeds
        if told is None:
            return [None]
        words = [*_words(row.options), *self.call.pretrain]
        if "SEED" in words[::2]:
            raise InputError(f"it has seeds and SEED {words[words.index('SEED') + 1]}; give one")
        return list(seeds_of(told, pretraining.load(row.pretrain, words).SEED))

    def add_free(self, free: FreeJob) -> None:
        """A command of the file's own, or one for each of its seeds."""
        for seed in seeds_of(free.seeds) or [None]:
            self._add_free(free, seed)

    def _add_free(self, free: FreeJob, seed: int | None) -> Job:
        def words(text: str) -> list[str]:
            places = {"dir": str(self.folder), "data": str(self.data.home)}
            places |= {} if seed is None else {"seed": str(seed)}
            try:
                return [string.Template(word).substitute(places) for word in shlex.split(text)]
            except (KeyError, ValueError) as error:
                raise InputError(
                    f"the job '{free.name}' of {self.spec.name} has '{text}' ({error}); allowed: "
                    f"words with {' and '.join(f'${name}' for name in places)}, quoted as in bash"
                ) from None

        if seed is not None and not re.search(r"\$(seed\b|\{seed\})", free.run):
            raise InputError(
                f"the job '{free.name}' of {self.spec.name} has seeds, but no $seed in '{free.run}'"
            )

        outputs = tuple(Path(expand(word)) for text in free.outputs for word in words(text))
        env, program = {VARIABLE: str(self.data.home)}, (sys.executable, "-m", free.module)
        argv, needs = tuple(words(free.run)), tuple(self._needs(free, seed))
        name = free.name if seed is None else f"{free.name}-seed{seed}"
        job = Job(name, argv, needs, outputs, env, program)
        self._add("free", job)
        return job

    def _needs(self, free: FreeJob, seed: int | None) -> Iterator[str]:
        """What a job of the file's own waits for: of one with seeds that of its own, else all."""
        seeds = {each.name: seeds_of(each.seeds) for each in self.spec.jobs}
        for need in free.needs:
            of = [seed] if seed in seeds.get(need, []) else seeds.get(need, [])
            yield from [f"{need}-seed{each}" for each in of] or [need]

    def add_table(self) -> None:
        """The last job; a miniature's table stands beside no paper's numbers."""
        if self.spec.paper:
            layouts.find(self.spec.paper)
        told = dict(self.spec.table or {})
        self._check_baseline(told.get("baseline"))
        name = (self.spec.paper or self.spec.name).replace("/", "_") + self._of_mini()
        on_paper = None if self.mini else self.spec.paper or None
        labels = [word for at, to in self.results.items() for word in ("--label", f"{at}={to}")]
        job = making.table_job(
            self.results,
            self.folder / expand(told.pop("output", f"tables/{name}.md")),
            paper=on_paper,
            after=tuple(self.jobs["transfer"]),
            name="table" if "output" in (self.spec.table or {}) else f"table-{name}",
            options=(*_words(told, "--"), *([] if on_paper else labels)),
        )
        self._add("table", job)

    def add_plot(self) -> None:
        """The figure of the trials, of those of finished rows where some failed."""
        name = self.spec.name.replace("/", "_") + self._of_mini()
        output = self.folder / "plots" / f"{name}.png"
        argv = ("plot", self.spec.plot, *map(str, self.results), "-o", str(output))
        after, content = tuple(self.jobs["transfer"]), ("plot", self.spec.plot)
        self._add("plot", Job(f"plot-{name}", argv, (), (output,), after=after, content=content))

    def _check_baseline(self, name: str | None) -> None:
        """InputError for one that no row of the table will have."""
        if name is not None and name not in (known := [*dict.fromkeys(self.results.values())]):
            raise unknown("baseline", name, known, f"table of {self.spec.name}")

    def _draw_scenes(self) -> None:
        if self.data.named:
            raise InputError(f"--data names {', '.join(self.data.named)}, but scenes are drawn")
        root = self.folder / "scenes"
        self.data, self.drawn = Data(root, root), ("scenes",)
        numbers = SCENES | dict(self.spec.scenes or {}) | dict(self.call.scenes)
        argv = ("scenes", str(root), *_words(numbers, "--"))
        self._add("scenes", Job("scenes", argv, outputs=(root / "densessl_scenes.json",)))

    def _given(self, row: Row, file: str) -> tuple[str, tuple[str, ...], str]:
        """Weights from elsewhere, converted: their file, the jobs to wait for, their name."""
        if not Path(file).is_file():
            raise InputError(f"--weights: the file '{file}' of '{row.method}' is not there")
        place = Path(file).absolute()
        key = f"{row.name or _slug(row.method)}-{sha256(place)[:8]}"
        ending = ".pth" if self._classifies() else ".pkl"  # .pth: of a ViT, too
        facts = _facts(self.spec.paper, row.method)
        return self._converted(key, place, (), ending, layouts.known_as(row.method), facts)

    def _converted(self, key: str, source: Path, needs: tuple, ending: str, *told):
        output = self.folder / "weights" / f"{key}{ending}"
        method, facts = told or (None, None)
        job = making.convert_job(
            source, output, name=f"convert-{key}", needs=needs, method=method, facts=facts
        )
        return str(output), (self._add("convert", job), *self.drawn), key

    def _pretrained(self, row: Row, seed: int | None) -> tuple[str, tuple[str, ...], str]:
        """The row's pretraining with a seed, and what comes of it."""
        job, vit = self._pretrain(row, row.pretrain, row.options, row.name, seed)
        key = job.outputs[0].parent.name
        if self.spec.show and seed == self._seeds(row)[0]:  # one picture of a row
            self._show(key, job)
        return self._converted(key, job.outputs[0], (job.name,), ".pth" if vit else ".pkl")

    def _pretrain(
        self, row: Row, config: str, options: Mapping[str, Any], name: str, seed: int | None
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
        words, key = _words(options), name or _slug(Path(config).stem)
        reads = expand(row.data or self.spec.data)
        nodes, gpus = self.call.nodes, self.call.gpus
        if self.mini:
            words, reads = [*_sizes(config), *words], STAND_IN
            config, key = f"{config}{TWIN}", name or f"{key}{TWIN}"
            nodes, gpus = 1, min(gpus, 1)
        if not self.drawn:
            self.reads[reads] = None
        if seed not in (None, pretraining.load(config, words).SEED):
            words, key = [*words, "SEED", str(seed)], f"{key}-seed{seed}"
        words = ["DATA.PATH", str(self.data.home / reads), *words, *self.call.pretrain]

        def made(place: Path) -> Job:
            how = {"nodes": nodes, "gpus": gpus, "local": self.call.local}
            how |= {"name": f"pretrain-{place.name}", "needs": needs, "start": start}
            return making.pretrain_job(config, words, place, **how)

        def sum_of(saved: Mapping) -> str:
            return making.pretraining_sum(saved, made_here=start is not None)

        first = self.folder / "pretrain" / key
        place = self._own(first, made(first).content[-1], sum_of)
        self._add("pretrain", made(place))
        vit = pretraining.load(config, words).BACKBONE.NAME.startswith("vit")
        return made(place), vit

    def _show(self, key: str, job: Job) -> None:
        """Pictures of two views of an image, and of what the network makes of them."""
        told = dict(self.spec.show or {})
        image = self.data.home / expand(told.pop("image"))
        place = self.folder / "pictures" / f"views_{key}"
        argv = ("show", str(job.outputs[0]), str(image), "-o", str(place), *_words(told, "--"))
        outputs = (place / f"{image.stem}.png",)
        self._add("show", Job(f"views-{key}", argv, needs=(job.name,), outputs=outputs))

    def _measure(self, row: Row, protocol: Protocol, start: str, needs: tuple, key: str) -> None:
        """The trials of a row under a protocol."""
        mini = self.mini or protocol.mini
        variant = MINI_VARIANT.get(protocol.name, protocol.variant) if mini else protocol.variant
        options = {**protocol.options, **row.transfer}
        if mini:
            options.pop("DATASETS.CLASSES", None)  # scenes have classes of their own
        words = [*_words(options), *self.call.transfer]
        gpus = min(self.call.gpus, 1) if mini else self.call.gpus
        places = dict(protocol.own_data)
        for name in own_data.PLACES:
            if name in places:
                places[name] = str(Path(expand(places[name])).absolute())
        own = making.read_own(places, protocol.name)
        told = making.resolved(protocol.name, variant, words, 1, gpus, mini, False, own)
        if not self.drawn:
            self.reads |= dict.fromkeys(folders_of(told.cfg))
            self.configs[told.sum] = told.cfg
        under = protocol.folder
        if under is None:
            under = "_".join(filter(None, (protocol.name, told.variant)))
            under += "".join(
                f"-{_slug(name.split('.')[-1])}_{_slug(options[name])}" for name in options
            )
            under += self._of_mini()
        place = self.folder / "transfer" / under / key
        place = self._own(place, told.sum, making.transfer_sum)
        if place in self.results:
            return  # in miniature, two protocols may be one
        self.results[place] = row.method
        trials = making.transfer_jobs(
            start,
            protocol.name,
            told.variant or None,
            self._trials(row, protocol),
            place,
            name="-".join(filter(None, ("transfer", under, place.name))),
            options=words,
            gpus=gpus,
            needs=needs,
            data=self.data.home,
            mini=mini,
            own_data=places,
            together=protocol.together,
        )
        for job in trials:
            self._add("transfer", job)

    def _trials(self, row: Row, protocol: Protocol) -> int:
        if self.call.trials is not None:
            return self.call.trials
        if self.call.mini:
            return 1
        return protocol.trials if row.trials is None else row.trials

    def _classifies(self) -> bool:
        """Whether no protocol needs Detectron2's weights."""
        from densessl.d2_transfer.protocols import room

        return all(room(protocol.name) for protocol in self.spec.protocols)

    def _of_mini(self) -> str:
        return "-mini" if self.mini else ""

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

    def _own(self, place: Path, total: str, sum_of: Callable[[Mapping], str]) -> Path:
        """``place``, or ``place-SUM`` where another config has taken or begun it.

        ``sum_of`` gives the sum of what a run's ``config.yaml`` holds.
        """
        taken = self.sums.get(place)
        if taken is None and (place / "config.yaml").is_file():
            try:
                taken = sum_of(yaml.safe_load((place / "config.yaml").read_text("utf-8")))
            except (yaml.YAMLError, KeyError, AttributeError, TypeError):
                taken = "unreadable"
        if taken not in (None, total):
            place = place.with_name(f"{place.name}-{total[:8]}")
        self.sums[place] = total
        return place


def _sizes(config: str) -> list[str]:
    """What the twin of a config keeps of it, as ``KEY VALUE``: a detector takes no other sizes."""
    from densessl.pretrain import config as pretraining

    full = pretraining.flat(pretraining.load(config))
    kept = [] if full["BACKBONE.NAME"].startswith("vit") else ["BACKBONE.NAME"]
    kept += ["RESIM.FPN_DIM"] if full["METHOD.NAME"] == "resim" else []
    return _words({key: full[key] for key in kept})


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


def _words(values: Mapping[str, Any], before: str = "") -> list[str]:
    """``KEY VALUE`` of each, or with ``--`` before it, flags."""
    return [word for key, value in values.items() for word in (f"{before}{key}", str(value))]


def _slug(text: Any) -> str:
    """Of a text, what a folder may be called: small letters, digits, ``_``, ``-``."""
    return re.sub(r"[^a-z0-9_.-]+", "_", str(text).lower()).strip("_")
