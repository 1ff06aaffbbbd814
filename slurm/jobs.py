"""The jobs that graphs are made of: a pretraining, a conversion, the trials of a protocol, a table.

What is wrong with a config or an option is an InputError here, before any job runs.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from densessl.core.errors import InputError
from densessl.core.files import sha256
from densessl.core.remote import split
from densessl.d2_transfer import flags, own_data
from densessl.d2_transfer.protocols import DETECTION, anywhere, find

from . import cost
from .graph import Job, Resources

RANDOM = "random"
RANDOM_BN = "random_bn"
RANDOM_STARTS = (RANDOM, RANDOM_BN)
SUPERVISED = "supervised:"


def pretrain_job(
    config: str,
    overrides: Sequence[str],
    folder: Path,
    *,
    name: str = "pretrain",
    nodes: int = 1,
    gpus: int = 8,
    needs: Sequence[str] = (),
    start: Path | None = None,
    local: bool = False,
    change: Sequence[str] = (),
) -> Job:
    """``densessl pretrain`` into ``folder``, one process a GPU.

    ``config`` is a file or the name of a built-in one, ``overrides`` its ``KEY VALUE`` pairs;
    ``gpus`` of each of ``nodes`` (0: one process on the CPU). ``start``: the weights that it starts
    from and that a job of ``needs`` makes. ``local``: for this machine, where the job itself starts
    the processes. ``change``: the options that a run found there is to have otherwise than before.
    Raises InputError for what pretrain would refuse.
    """
    from densessl.pretrain import config as pretraining

    config, words = _config_path(config), list(map(str, overrides))
    added = {"BACKBONE.WEIGHTS": start} if start else {}
    for key, value in (added | {"OUTPUT_DIR": folder}).items():
        if key in words[::2]:
            raise InputError(f"{key} is given twice: '{words[words.index(key) + 1]}' and {value}")
        words += [key, str(value)]
    cfg = pretraining.load(config, words)
    pretraining.check_folders(cfg)
    pretraining.validate_loaded(cfg, config, words, nodes * max(gpus, 1))
    pretraining.split_paths(cfg.DATA.PATH)  # an address that is none, or has a password
    program = Job.program
    if local and gpus > 1:
        launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", str(gpus))
        program = (sys.executable, "-m", *launcher, "-m", "densessl")
    return Job(
        name,
        ("pretrain", "--config", config, *words, *(("--change", *change) if change else ())),
        needs=tuple(needs),
        outputs=(Path(folder) / "backbone_final.pth",),
        program=program,
        content=("pretrain", pretraining_hash(cfg, made_here=start is not None)),
        resources=Resources(nodes, gpus, "gpu", cost.of_pretraining(config, words, nodes * gpus)),
    )


def pretraining_hash(
    cfg: Mapping[str, Any], made_here: bool = False, asked: Mapping[str, Any] | None = None
) -> str:
    """The hash of a pretraining's options, less those that do not change what comes out.

    ``cfg`` may come from a run's ``config.yaml``. Data count by the last two parts of their path,
    as records name them: they may have moved, and pretrain itself compares their images. Weights to
    start from count by their content, unless a job of the same graph makes them (``made_here``).
    What ``asked``, the config that is wanted, leaves to the device counts as left to it.
    """
    from densessl.pretrain import config as pretraining
    from densessl.pretrain.engine.resume import FREE

    options = pretraining.flat(pretraining.defaults()) | pretraining.flat(cfg)
    weights, paths = options["BACKBONE.WEIGHTS"], split(str(options["DATA.PATH"]))
    free = set(FREE) - {"DATA.CLASSES"}
    kept = {key: value for key, value in options.items() if key not in free}
    kept = pretraining.as_asked(kept, asked or {})
    kept["DATA.PATH"] = [Path(path).absolute().parts[-2:] for path in paths]
    if weights and not made_here:
        kept["BACKBONE.WEIGHTS"] = sha256(weights) if Path(weights).is_file() else weights
    return _hash(kept)


def convert_job(
    weights: Path,
    output: Path,
    *,
    name: str = "convert",
    needs: Sequence[str] = (),
    method: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Job:
    """``densessl convert``: a checkpoint to weights, proved; ``output`` ends in .pkl (a ViT: .pth).

    The checkpoint is what a job of ``needs`` makes; without ``needs`` it must be there, and counts
    by its content. ``method`` is its name and ``facts`` what it was pretrained on (``dataset``,
    ``epochs``), where the file cannot tell them.
    """
    words = [f"{key}={value}" for key, value in (facts or {}).items()]
    content = ["convert", Path(output).suffix, method or "", *words]
    if not needs:
        content.append(_file_hash(weights))
    named = (*(("--method", method) if method else ()), *(("--pretrain", *words) if words else ()))
    return Job(
        name,
        ("convert", str(weights), "-o", str(output), *named, "--force"),
        needs=tuple(needs),
        outputs=(Path(output),),
        content=tuple(content),
    )


def transfer_jobs(
    weights: str | Path,
    protocol: str,
    variant: str | None,
    trials: int,
    folder: Path,
    *,
    name: str = "transfer",
    options: Sequence[str] = (),
    nodes: int = 1,
    gpus: int = 8,
    needs: Sequence[str] = (),
    seed: int = 1,
    own: Any = None,
    together: bool = False,
    **given: Any,
) -> list[Job]:
    """``densessl transfer``: a job for each of ``trials``, ``NAME-1``, ``NAME-2``, …, one array.

    ``weights`` is ``random``, ``random_bn``, ``supervised:FILE`` or a file: one that a job of
    ``needs`` makes, or, without ``needs``, one that is there and counts by its content. ``options``
    are ``KEY VALUE`` pairs, ``gpus`` of each of ``nodes`` (0: the CPU), ``given`` further flags by
    name, ``own`` the data of a custom protocol that they name, where those were read before.
    ``together``: one job, ``NAME``, for all trials. Raises InputError for what transfer would
    refuse.
    """
    if trials < 1:
        raise InputError(f"the trials of {protocol} are {trials}; allowed: 1 or more")
    known = find(protocol)[0]
    own = own_data.of(known, given) if own is None else own
    found = resolved(protocol, variant, options, nodes, gpus, own, **flags.of_config(given))
    if str(weights) == RANDOM_BN:
        _check_control(protocol, found.cfg)
    first = {"protocol": anywhere(protocol), "variant": found.variant or None, "gpus": gpus or None}
    words = flags.given_words({**first, **given, "seed": seed, "output_dir": folder})
    words += map(str, options)
    content = ["transfer", known.name, found.variant, found.config_hash]
    if str(weights) in RANDOM_STARTS:
        content.append(str(weights))
    elif not needs:
        content.append(_file_hash(str(weights).removeprefix(SUPERVISED)))
    mini = given.get("mini")
    hours = (
        None if mini else cost.of_fine_tuning(found.file, [*known.words, *options], nodes * gpus)
    )
    resources = Resources(nodes, gpus, "node", hours and hours * (trials if together else 1))

    def job(name: str, output: str, *which: str, **more) -> Job:
        argv = ("transfer", str(weights), "--trials", str(trials), *which, *words)
        outputs = (Path(folder) / output,)
        return Job(name, argv, tuple(needs), outputs, resources=resources, **more)

    if together:
        return [job(name, "summary.json", content=(*content, f"{seed} to {seed + trials - 1}"))]
    return [
        job(
            f"{name}-{trial}",
            f"trial_{trial}/result.json",
            "--trial",
            str(trial),
            content=(*content, str(seed + trial - 1)),
            array=name,
        )
        for trial in range(1, trials + 1)
    ]


class Resolved(NamedTuple):
    """A protocol's config for some GPUs, its variant, its file, and the hash that records hold."""

    cfg: Any
    variant: str
    file: Path
    config_hash: str


def resolved(
    protocol: str,
    variant: str | None = None,
    options: Sequence[str] = (),
    nodes: int = 1,
    gpus: int = 8,
    custom: Any = None,
    **how: Any,
) -> Resolved:
    """The config of a protocol as its trials will have it; ``gpus`` 0: on the CPU. InputError.

    ``how``: the flags that it depends on.
    """
    how |= {"overrides": tuple(map(str, options)), "cuda": gpus > 0, "custom": custom}
    resolve = _resolve_once if custom is None else _resolve
    return resolve(protocol, variant, nodes * max(gpus, 1), **how)


def _resolve(protocol: str, variant: str | None, processes: int, **how: Any) -> Resolved:
    from densessl.d2_transfer.resolve import resolve

    found, variant = find(protocol, variant)
    cfg = resolve(protocol, variant, processes, plain=True, **how)
    return Resolved(cfg, variant, found.file(variant), transfer_hash(cfg))


_resolve_once = lru_cache(maxsize=None)(_resolve)  # a table asks for the same one for every row


def transfer_hash(cfg: Any) -> str:
    """The hash of a protocol's config (or of a ``config.yaml`` read), as records hold it."""
    from densessl.d2_transfer import results

    return results.config_fingerprint(results.as_dict(cfg) if hasattr(cfg, "dump") else cfg)


def table_job(
    folders: Iterable[Path],
    output: Path,
    *,
    paper: str | None = None,
    after: Sequence[str] = (),
    name: str = "table",
    options: Sequence[str] = (),
) -> Job:
    """``densessl table`` of the trials below ``folders``, beside the numbers of a paper's table.

    It comes ``after`` its trials, also of failed ones: the table says how many there are.
    """
    words = [*map(str, folders), *(("--paper", paper) if paper else ()), *options]
    return Job(
        name,
        ("table", *words, "-o", str(output)),
        after=tuple(after),
        outputs=(Path(output),),
        content=("table", paper or "", *map(str, options)),
    )


def _check_control(protocol: str, cfg: Any) -> None:
    """InputError for a protocol that settles batch norm by itself."""
    from densessl.d2_transfer.classification.weights import check_control
    from densessl.d2_transfer.weights import refuse_random_bn

    if find(protocol)[0].family == DETECTION:
        raise refuse_random_bn(f"{protocol} settles batch norm by itself")
    check_control(cfg)


def _config_path(config: str) -> str:
    """A config's file as an absolute path (a job may run elsewhere), a built-in one's name."""
    return str(Path(config).absolute()) if Path(config).is_file() else str(config)


def _file_hash(path: str | Path) -> str:
    if not Path(path).is_file():
        raise InputError(f"the weights '{path}' are not a file")
    return sha256(path)


def _hash(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
