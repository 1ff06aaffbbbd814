"""What ``densessl transfer`` does once its arguments are right."""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from densessl.core import files, log
from densessl.core.errors import DenseSSLError, InputError

from . import compat, config_files, flags, own_data, protocols
from .config import ADAMW
from .launch import Machines
from .protocols import Protocol
from .resolve import describe_scaling, places, resolve
from .run import log_name
from .saved import FINAL


@dataclass(frozen=True)
class TransferJob:
    """A protocol, and the processes that work on it."""

    protocol: Protocol
    variant: str
    machines: Machines
    cuda: bool
    gpus: int  # of this machine

    @property
    def processes(self) -> int:
        return self.gpus * self.machines.count


def transfer(args) -> int:
    """Run the protocol that ``args`` (of ``main.parser``) name; the exit code.

    Raises InputError for what is wrong with them, EnvironmentLacks without Detectron2, both before
    any work, and DenseSSLError when a trial has failed.
    """
    protocol, variant = protocols.find(args.protocol, args.variant)
    compat.require_installed()  # the trials of every protocol need it: said before any work
    machines = Machines.parse(args.num_machines, args.machine_rank, args.dist_url)
    job = TransferJob(protocol, variant, machines, *_devices(args.gpus))
    known = places(args.protocol, args.variant, args.mini, args.overrides)
    with files.unmade_when_refused(args.output_dir), config_files.placed(known):
        return _transfer(args, job)


def _transfer(args, job: TransferJob) -> int:
    protocol, evaluates = job.protocol, args.eval_only
    if evaluates and not protocol.parameters:
        raise InputError(
            f"--eval-only is for trained models; {protocol.name} trains nothing that is "
            "kept: leave it out"
        )
    own = own_data.of(protocol, vars(args))
    given = flags.of_config(vars(args)) | {"variant": job.variant, "overrides": args.overrides}
    cfg = resolve(args.protocol, gpus=job.processes, cuda=job.cuda, custom=own, **given)
    room = protocol.room
    data = room.check_data(cfg, own or args.data, args.mini, evaluates)
    from . import channels, evaluate_only, image_range

    logger = _begin(args, job, cfg)
    run = _run(args, job, cfg, data, evaluate_only.trained if evaluates else room.prepare)
    _say(logger, args, job, run.weights.method)
    cfg = channels.settle(cfg, run.weights.images)
    channels.require_readable(cfg, own, run.weights.pretrain)
    cfg = image_range.settle(
        cfg,
        image_range.of_trial(run.weights.file) if evaluates else run.weights.bounds,
        lambda: [] if evaluates else room.training_files(cfg, data),
        says=job.machines.first,
    )
    cfg = room.ready(cfg, run, evaluates)
    _accepted(args, job)
    if own is not None:
        run = replace(run, data=own.written())
    if evaluates:
        return evaluate_only.run(run, cfg, args.seed, room.evaluate_trained)
    if job.machines.first:
        if own is not None:
            logger.info(own.describe())
        logger.info(room.describe(cfg, job.processes))
        if scaled := _scaling(args, job, own):
            logger.info(scaled)
    return _trials(args, logger, run, cfg, room.run_trial)


def _scaling(args, job: TransferJob, own) -> str:
    """What Detectron2's rule changed for so many GPUs, in a line; empty where nothing was."""
    if job.protocol.family != protocols.DETECTION or args.mini or args.keep_batch:
        return ""
    source, ours = (
        resolve(args.protocol, job.variant, gpus, custom=own) for gpus in (None, job.processes)
    )
    return describe_scaling(source, ours, job.processes, args.overrides[::2])


def _begin(args, job: TransferJob, cfg):
    """Begin the log; InputError where the output folder cannot be made, or the disk is full."""
    folder = Path(args.output_dir).absolute()
    try:
        files.standing(folder)
    except OSError as error:
        raise InputError(f"-o {args.output_dir} cannot be written to: {error.strerror}") from None
    if not args.eval_only:
        _check_disk(folder, cfg, job.protocol, 1 if args.trial else args.trials)
    return log.setup(rank=job.machines.rank)


def _accepted(args, job: TransferJob) -> None:
    """Make the output folder: from here on the log is written there, with what came before."""
    folder = Path(args.output_dir).absolute()
    try:
        log.setup(folder, job.machines.rank, log_name(args.trial))
    except OSError as error:
        raise InputError(f"-o {args.output_dir} cannot be written to: {error.strerror}") from None


def _run(args, job: TransferJob, cfg, data, find: Callable):
    from .run import Run

    folder = Path(args.output_dir).absolute()
    return Run(
        folder=folder,
        protocol=job.protocol.name,
        variant=job.variant,
        mini=args.mini,
        weights=find(args.weights, folder, cfg),
        data=data,
        gpus=job.gpus,
        machines=job.machines,
        metrics=job.protocol.metrics,
        stall_timeout=args.stall_timeout,
        named=tuple(args.overrides[::2]),
        imports=cfg.get("IMPORT", ""),
        only=args.trial,
    )


def _trials(args, logger, run, cfg, work: Callable) -> int:
    from . import summary, trials

    records, failed = trials.run_trials(run, cfg, args.trials, args.seed, work)
    if records:
        print(summary.table(run.metrics, records))
        shown = shlex.join(["densessl", "table", str(run.folder)])
        logger.info("records in %s; a paper-style table: %s", run.folder, shown)
    if failed and args.trial:
        raise DenseSSLError(f"trial {args.trial} failed: {failed[args.trial]}")
    if failed:
        problems = "; ".join(f"trial {trial}: {problem}" for trial, problem in failed.items())
        raise DenseSSLError(
            f"{len(failed)} of {args.trials} trials failed; the same command takes them up again "
            f"({problems})"
        )
    return 0


def _say(logger, args, job: TransferJob, method: str) -> None:
    variant = f", variant {job.variant}" if job.variant else ""
    if job.variant and args.variant is None:
        others = [name for name in job.protocol.variants if name != job.variant]
        variant += f" (the default; others: {', '.join(others)})" if others else ""
    size = " as a miniature" if args.mini else ""
    doing = "evaluation of" if args.eval_only else "from"
    logger.info("%s%s%s, %s %s", args.protocol, variant, size, doing, method)


def _devices(wanted: int | None) -> tuple[bool, int]:
    """Whether there is CUDA, and how many processes to train with."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count and wanted and wanted > count:
        raise InputError(f"--gpus is {wanted}, but this machine has {count}")
    return count > 0, wanted or max(count, 1)


def _check_disk(folder: Path, cfg, protocol, trials: int) -> None:
    """Trained trials have their model; the one that runs has two checkpoints at a time, each with
    the model and the optimizer's one or two moments."""
    model = protocol.parameters * 4e6  # bytes
    moments = 2 if cfg.get("SOLVER", {}).get("OPTIMIZER") == ADAMW else 1
    if trials > 1:
        trials -= len(list(folder.glob(f"trial_*/{FINAL}")))
    needed = max(trials, 0) * model + 2 * (1 + moments) * model + 200e6
    free = shutil.disk_usage(files.standing(folder)).free
    if free < needed:
        raise InputError(
            f"{folder} is on a disk with {free / 1e9:.1f} GB free; {trials} trials of "
            f"{protocol.name} need about {needed / 1e9:.1f} GB: free some, or give another -o"
        )
