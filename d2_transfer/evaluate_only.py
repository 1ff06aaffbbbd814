"""``densessl transfer MODEL --eval-only``: the numbers of a trained model, nothing trained."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densessl.core import files, log
from densessl.core.errors import InputError
from densessl.core.text import read_mapping

from . import compat, config_files, convert, results
from .launch import Rendezvous
from .limits import check_machine, smaller
from .run import Run, differences
from .saved import FINAL, NOTE
from .stops import stoppable
from .summary import metric_table
from .trained import measure
from .trials import detectron2_log, in_process, record_of, register
from .weights import Weights

logger = logging.getLogger("densessl")
FILE = "evaluation.json"
UNKNOWN = "a trained model"


@dataclass(frozen=True)
class ModelOrigin:
    """What is known of a trained model: what it was fine-tuned from, how, and with which seed.

    ``protocol``, ``variant`` and ``mini`` are None for a model that no trial of ours left.
    """

    method: str
    weights: dict[str, str]
    pretrain: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    protocol: str | None = None
    variant: str | None = None
    mini: bool | None = None


def origin(model: Path) -> ModelOrigin:
    """From the record beside the model, else from what its trial was begun with, else unknown.

    InputError for a damaged file of these.
    """
    if (model.parent / results.FILE).is_file():
        held = results.load(model.parent)
        about = (held.protocol, held.variant, held.mini)
        return ModelOrigin(held.method, held.weights, held.pretrain, held.seed, *about)
    run, config = model.parent.parent / "run.json", model.parent / "config.yaml"
    if not (run.is_file() and config.is_file() and (model.parent / NOTE).is_file()):
        return ModelOrigin(UNKNOWN, {"path": str(model), "sha256": files.sha256(model)})
    try:
        facts = files.read_object(run, "what a run of transfer wrote")
        options = read_mapping(config, "the config of a trial")
        converted = options["MODEL"]["WEIGHTS"]
        pretrain: dict = {}
        if converted and Path(converted).is_file():
            pretrain = convert.read_weights(converted)["densessl"].get("pretrain") or {}
        return ModelOrigin(
            facts["method"],
            {"path": facts["weights"], "sha256": facts["weights_sha256"]},
            pretrain,
            options["SEED"],
            facts["protocol"],
            facts["variant"],
            facts["mini"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{run} and {config} do not tell how {model} was trained: {error!r}"
        ) from None


def trained(named: str, folder: Path, cfg) -> Weights:
    """What ``WEIGHTS`` names: a trial's ``model_final.pth``, or its folder. Raises InputError."""
    source = Path(named)
    if source.is_dir():
        source = source / FINAL
    if not source.is_file():
        raise InputError(
            f"'{source}' is not a file; --eval-only takes the model_final.pth of a trial, or the "
            "trial's folder"
        )
    source, sha256 = source.absolute(), files.sha256(source)
    for name in ("run.json", results.FILE, NOTE):
        if (Path(folder) / name).is_file() and not _is_again(Path(folder), sha256):
            raise InputError(f"{folder} holds trials ({name}); name another -o for an evaluation")
    config = source.with_name("config.yaml")
    held: dict[str, Any] = {}
    if config.is_file():
        held = results.flat(read_mapping(config, "the config of a trial"))
    network, images = held.get("MODEL.BACKBONE.TIMM", ""), _images_of(held)
    method = origin(source).method
    return Weights(str(source), str(source), sha256, method, network=network, images=images)


def _images_of(held: dict[str, Any]) -> dict[str, Any]:
    """What the flat config of a model's trial says of images of other than three channels."""
    if not held.get("INPUT.CHANNELS"):
        return {}
    normal = {key.lower(): held.get(f"MODEL.{key}") for key in ("PIXEL_MEAN", "PIXEL_STD")}
    return {"channels": held["INPUT.CHANNELS"], "normalization": normal}


def _is_again(folder: Path, sha256: str) -> bool:
    """Whether the folder holds an evaluation of the same model, which may be done anew."""
    held = folder / results.FILE
    return held.is_file() and results.load(held).evaluated.get("sha256") == sha256


def run(run: Run, cfg, seed: int, work: Callable | None = None) -> int:
    """Evaluate, print the protocol's metrics, write them to ``DIR/evaluation.json`` and a record.

    ``seed`` is the record's where the model does not tell the one that it was trained with.
    ``work(run, origin)`` does it in each process: :func:`evaluate` unless named. Raises InputError
    for a model of another protocol.
    """
    known = origin(Path(run.weights.file))
    _check_protocol(run, known)
    register(run)
    check_machine(cfg, run.processes, run.gpus, evaluates=True)
    own = cfg.clone()
    own.defrost()
    own.OUTPUT_DIR = str(run.folder)
    own.SEED = seed if known.seed is None else known.seed
    if run.machines.first:
        _compare_configs(run, own)
        files.write_text(run.folder / "config.yaml", own.dump())
    less = smaller(cfg, run.processes, evaluates=True)
    with Rendezvous(run.machines, run.limit) as rendezvous:
        rendezvous.agree("begun")
        what = (work or evaluate, run, known, run.folder, f"evaluation of {run.weights.path}", less)
        rendezvous.run(in_process, run.gpus, what, cuda=cfg.MODEL.DEVICE != "cpu")
    if run.machines.first:
        held = files.read_json(run.folder / FILE)
        print(metric_table(run.metrics, held["metrics"]))
        logger.info("all metrics in %s; tables read %s", run.folder / FILE, results.FILE)
    return 0


def _check_protocol(run: Run, known: ModelOrigin) -> None:
    """A record under another protocol would tell of a training that was not."""
    if known.protocol is None:
        return
    for flag, there, here in (
        ("--protocol", known.protocol, run.protocol),
        ("--variant", known.variant, run.variant),
        ("--mini", known.mini, run.mini),
    ):
        if there != here:
            raise InputError(
                f"{run.weights.path} is not a model of this protocol, variant and size: {flag} "
                f"was {there!r} when it was trained, and is {here!r} here"
            )


def _compare_configs(run: Run, own) -> None:
    """Say in a line what the model was trained with and is not evaluated with."""
    beside = Path(run.weights.file).with_name("config.yaml")
    if not beside.is_file():
        return
    there = results.flat(read_mapping(beside, "the config of a trial"))
    if different := differences(there, results.flat(results.as_dict(own))):
        some = "; ".join(different[:4]) + ("; …" if len(different) > 4 else "")
        logger.info("evaluated with other options than the trial had: %s", some)


def evaluate(run: Run, known: ModelOrigin) -> None:
    """The work of one process (one of ``run.processes``)."""
    compat.setup()
    from detectron2.utils import comm

    main = comm.is_main_process()
    if comm.get_world_size() > 1:  # this is a process of its own
        log.setup(run.folder, comm.get_rank(), run.log)
        register(run)
    cfg = config_files.of_trial(run.folder / "config.yaml")
    cfg.freeze()
    started = results.now()
    with stoppable(), detectron2_log(run.folder / "detectron2.txt", main):
        metrics = measure(cfg, run.weights.file)
    if main:
        write(run, known, cfg, metrics, started)
    gc.collect()


def write(run: Run, known: ModelOrigin, cfg, metrics: dict[str, float], started: str) -> None:
    """Write ``evaluation.json`` and the record: the last thing that an evaluation does."""
    model = {"path": run.weights.path, "sha256": run.weights.sha256}
    of = {"method": known.method, "weights": known.weights, "pretrain": known.pretrain}
    record = record_of(run, cfg, metrics, started, evaluated=model, **of)
    files.write_json(
        run.folder / FILE,
        {
            "protocol": run.protocol,
            "variant": run.variant,
            "mini": run.mini,
            "model": model,
            "method": known.method,
            "metrics": {k: v if v == v else None for k, v in metrics.items()},
            "config_sha256": record.config_sha256,
            "versions": record.versions,
            "finished": record.finished,
        },
    )
    results.save(run.folder, record)
