"""``densessl transfer MODEL --eval-only``: the numbers of a trained detector, nothing trained."""

import gc
import json
import logging
from pathlib import Path

from console import files, log
from console.errors import InputError
from d2_transfer import compat, results
from d2_transfer.launch import Meeting
from d2_transfer.run import Run, as_dict
from d2_transfer.stops import StopRequest
from d2_transfer.summary import metric_table
from d2_transfer.trials import detectron2_log, register, versions
from d2_transfer.weights import Weights

logger = logging.getLogger("densessl")
FILE = "evaluation.json"


def trained(named: str, folder: Path, cfg) -> Weights:
    """What ``WEIGHTS`` names: a trial's ``model_final.pth``, or its folder. Raises InputError."""
    source = Path(named)
    if source.is_dir():
        source = source / "model_final.pth"
    if not source.is_file():
        raise InputError(
            f"'{source}' is not a file; --eval-only takes the model_final.pth of a trial, or the "
            "trial's folder"
        )
    for name in ("run.json", results.FILE, "last_checkpoint"):
        if (Path(folder) / name).is_file():
            raise InputError(f"{folder} holds trials ({name}); name another -o for an evaluation")
    method = "a trained model"
    if (source.parent / results.FILE).is_file():
        method = results.load(source.parent).method
    return Weights(str(source.absolute()), str(source.absolute()), files.sha256(source), method)


def run(run: Run, cfg) -> int:
    """Evaluate, print the protocol's metrics, and write them all to ``DIR/evaluation.json``."""
    register(run)
    own = cfg.clone()
    own.defrost()
    own.OUTPUT_DIR = str(run.folder)
    if run.machines.first:
        files.write_text(run.folder / "config.yaml", own.dump())
    with Meeting(run.machines) as meeting:
        meeting.agree("begun")
        meeting.run(evaluate, run.gpus, (run,), cuda=cfg.MODEL.DEVICE != "cpu")
    if run.machines.first:
        held = json.loads((run.folder / FILE).read_text())
        print(metric_table(run.protocol, held["metrics"]))
        logger.info("all metrics in %s", run.folder / FILE)
    return 0


def evaluate(run: Run) -> None:
    """The work of one process (one of ``run.processes``)."""
    compat.setup()
    from detectron2.utils import comm

    from d2_transfer.evaluation import flat_metrics
    from d2_transfer.sampling import end_workers
    from d2_transfer.trainer import Trainer

    main = comm.is_main_process()
    if comm.get_world_size() > 1:  # this is a process of its own
        log.setup(run.folder, comm.get_rank(), run.log)
        register(run)
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(run.folder / "config.yaml"), allow_unsafe=False)
    cfg.freeze()
    with StopRequest(), detectron2_log(run.folder / "detectron2.txt", main):
        model = Trainer.build_model(cfg)
        _load(model, run.weights.file)
        try:
            metrics = flat_metrics(Trainer.test(cfg, model) or {})
        finally:
            end_workers()
    if main:
        files.write_json(
            run.folder / FILE,
            {
                "protocol": run.protocol,
                "variant": run.variant,
                "mini": run.mini,
                "model": {"path": run.weights.path, "sha256": run.weights.sha256},
                "method": run.weights.method,
                "metrics": {k: v if v == v else None for k, v in metrics.items()},
                "config_sha256": results.config_fingerprint(as_dict(cfg)),
                "versions": versions(),
                "finished": results.now(),
            },
        )
    del model
    gc.collect()


def _load(model, file: str) -> None:
    """Fill every parameter and buffer of ``model``; InputError where the file is another's."""
    import torch

    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
        state = held["model"]
    except Exception as error:  # torch raises a dozen kinds for files that are not its own
        why = "it has no 'model'" if isinstance(error, KeyError) else type(error).__name__
        raise InputError(f"{file} is not the checkpoint of a trained model ({why})") from None
    ours = model.state_dict()
    wrong = sorted(ours.keys() ^ state.keys())
    wrong += [k for k in ours.keys() & state.keys() if ours[k].shape != state[k].shape]
    if wrong:
        some = ", ".join(wrong[:4]) + (", …" if len(wrong) > 4 else "")
        raise InputError(
            f"{file} is not a model of this protocol, variant and config: {len(wrong)} tensors "
            f"are missing, unknown or of another shape ({some})"
        )
    model.load_state_dict(state)
