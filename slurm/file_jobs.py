"""The jobs of a pipeline file beside its trainings: scenes, views, own commands, plot, table."""

import re
import shlex
import string
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from densessl.core.errors import InputError, unknown
from densessl.core.home import expand
from densessl.core.remote import is_remote
from densessl.d2_transfer.tables import layouts

from . import jobs as making
from .data import Data
from .graph import Job
from .spec import FreeJob, Spec, seeds_of

SCENES = {"train": 256, "val": 64, "size": 128, "seed": 0}
VARIABLE = "DETECTRON2_DATASETS"


def as_words(values: Mapping[str, Any], before: str = "") -> list[str]:
    """``KEY VALUE`` of each, or with ``--`` before it, flags."""
    return [word for key, value in values.items() for word in (f"{before}{key}", str(value))]


def scenes(spec: Spec, folder: Path, data: Data, numbers: Mapping[str, int]) -> Job:
    """The job that draws the scenes; ``numbers`` are the call's. They stand in for all ``data``."""
    if data.named:
        raise InputError(f"--data names {', '.join(data.named)}, but scenes are drawn")
    root = folder / "scenes"
    numbers = SCENES | dict(spec.scenes or {}) | dict(numbers)
    argv = ("scenes", str(root), *as_words(numbers, "--"))
    return Job("scenes", argv, outputs=(root / "densessl_scenes.json",))


def views(spec: Spec, folder: Path, data: Data, pretraining: Job) -> Job:
    """Pictures of two views of an image, and of what the pretrained network makes of them.
    InputError for an image beyond the disk."""
    flags = dict(spec.show or {})
    named = expand(flags.pop("image"))
    if is_remote(named):
        raise InputError(f"show in {spec.name}: image is {named}; allowed: an image on a disk")
    data.require_on_disk([named], "show")
    image = data.home / named
    checkpoint = pretraining.outputs[0]
    name = checkpoint.parent.name
    output = folder / "pictures" / f"views_{name}"
    argv = ("show", str(checkpoint), str(image), "-o", str(output), *as_words(flags, "--"))
    outputs = (output / f"{image.stem}.png",)
    return Job(f"views-{name}", argv, needs=(pretraining.name,), outputs=outputs)


def free(job: FreeJob, seed: int | None, spec: Spec, folder: Path, data: Path) -> Job:
    """A command of the file's own, with one of its seeds where it has some.

    ``folder`` is that of the run, ``data`` that of the data sets. Raises InputError for words that
    bash would not take, and for seeds that the command does not mention.
    """
    where = f"the job '{job.name}' of {spec.name}"
    if seed is not None and not re.search(r"\$(seed\b|\{seed\})", job.run):
        raise InputError(f"{where} has seeds, but no $seed in '{job.run}'")
    known = {"dir": str(folder), "data": str(data)}
    known |= {} if seed is None else {"seed": str(seed)}

    def filled(text: str) -> list[str]:
        try:
            return [string.Template(word).substitute(known) for word in shlex.split(text)]
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{where} has '{text}' ({error}); allowed: words with "
                f"{' and '.join(f'${name}' for name in known)}, quoted as in bash"
            ) from None

    return Job(
        name=job.name if seed is None else f"{job.name}-seed{seed}",
        argv=tuple(filled(job.run)),
        needs=tuple(_needs(job, seed, spec)),
        outputs=tuple(Path(expand(word)) for text in job.outputs for word in filled(text)),
        env={VARIABLE: str(data)},
        program=(sys.executable, "-m", job.module),
    )


def _needs(job: FreeJob, seed: int | None, spec: Spec) -> Iterator[str]:
    """What it waits for: of a job with seeds that of its own seed, else all."""
    seeds = {each.name: seeds_of(each.seeds) for each in spec.jobs}
    for need in job.needs:
        of = [seed] if seed in seeds.get(need, []) else seeds.get(need, [])
        yield from [f"{need}-seed{each}" for each in of] or [need]


def plot(
    spec: Spec, folder: Path, results: Mapping[Path, str], after: tuple[str, ...], mini: bool
) -> Job:
    """The figure of the trials, of those of finished rows where some failed.

    ``results``: the folders of trials, each with its row's method; ``after``: the trials' jobs.
    """
    name = spec.name.replace("/", "_") + ("-mini" if mini else "")
    output = folder / "plots" / f"{name}.png"
    argv = ("plot", spec.plot, *map(str, results), "-o", str(output))
    content = ("plot", spec.plot)
    return Job(f"plot-{name}", argv, outputs=(output,), after=after, content=content)


def table(
    spec: Spec, folder: Path, results: Mapping[Path, str], after: tuple[str, ...], mini: bool
) -> Job:
    """The last job, as :func:`plot`; a miniature's table stands beside no paper's numbers."""
    if spec.paper:
        layouts.find(spec.paper)
    flags = dict(spec.table or {})
    baseline = flags.get("baseline")
    if baseline is not None and baseline not in (known := [*dict.fromkeys(results.values())]):
        raise unknown("baseline", baseline, known, f"table of {spec.name}")
    name = (spec.paper or spec.name).replace("/", "_") + ("-mini" if mini else "")
    paper = None if mini else spec.paper or None
    labels = [word for at, to in results.items() for word in ("--label", f"{at}={to}")]
    return making.table_job(
        results,
        folder / expand(flags.pop("output", f"tables/{name}.md")),
        paper=paper,
        after=after,
        name="table" if "output" in (spec.table or {}) else f"table-{name}",
        options=(*as_words(flags, "--"), *([] if paper else labels)),
    )
