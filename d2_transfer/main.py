"""``densessl transfer WEIGHTS --protocol NAME``: fine-tune, evaluate, average over trials."""

import shutil
import sys
from pathlib import Path

from console import log
from console.errors import DenseSSLError, InputError
from console.parser import Parser

CUSTOM = ("train_json", "train_images", "val_json", "val_images")
DESCRIPTION = """\
Fine-tune pretrained weights under a paper's protocol with Detectron2's own trainer, evaluate, and
average over trials. A trial that is finished is not run again; an interrupted one goes on.

WEIGHTS is a checkpoint of 'densessl pretrain' (converted first, with its proof), a converted .pkl,
'random', or 'supervised:FILE' with a torchvision state dict. KEY VALUE pairs change Detectron2's
config last of all; 'densessl transfer --protocol NAME --print-config' shows every key.
"""


def parser() -> Parser:
    made = Parser(prog="densessl transfer", description=DESCRIPTION, add_help=True)
    made.add_argument("weights", nargs="?", metavar="WEIGHTS", help="what to start from")
    made.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="Detectron2 options")
    made.add_argument("--protocol", metavar="NAME", help="one of --list")
    made.add_argument("--variant", metavar="NAME", help="where a protocol has two; see --list")
    made.add_argument("--trials", type=int, default=5, metavar="K", help="how many fine-tunings")
    made.add_argument("--seed", type=int, default=1, help="of the first trial; the next have +1")
    made.add_argument("-o", "--output-dir", metavar="DIR", help="where everything is written")
    made.add_argument("--data", metavar="DIR", help="the data sets; else DETECTRON2_DATASETS")
    made.add_argument(
        *("--gpus", "--num-gpus"),
        type=int,
        metavar="N",
        help="processes on this machine; else every GPU there is",
    )
    made.add_argument(
        "--keep-batch",
        action="store_true",
        help="on fewer GPUs the source's images a step, instead of a smaller batch and learning "
        "rate and a longer schedule",
    )
    made.add_argument("--num-machines", type=int, default=1, metavar="M", help="that share DIR")
    made.add_argument("--machine-rank", type=int, default=0, metavar="R", help="0 to M-1")
    made.add_argument("--dist-url", metavar="URL", help="tcp://HOST:PORT of machine 0")
    made.add_argument(
        "--eval-only",
        action="store_true",
        help="evaluate WEIGHTS, a trial's model_final.pth, and train nothing",
    )
    for name in ("train", "val"):
        made.add_argument(f"--{name}-json", metavar="FILE", help=f"custom_*: {name} annotations")
        made.add_argument(f"--{name}-images", metavar="DIR", help=f"custom_*: {name} images")
    made.add_argument("--mini", action="store_true", help="a miniature for two cores and scenes")
    made.add_argument("--list", action="store_true", help="print the protocols")
    made.add_argument(
        "--print-config",
        action="store_true",
        help="print the complete config as YAML (for the source's GPUs unless --gpus says others)",
    )
    return made


def main(argv: list[str]) -> int:
    """Run the verb; see DESCRIPTION."""
    args = parser().parse_intermixed_args(argv)
    if args.list:
        print(listing())
        return 0
    if args.print_config:
        print(_config_text(args), end="")
        return 0
    _check_arguments(args)
    return _transfer(args)


def listing() -> str:
    """The protocols with their variants, as text."""
    from d2_transfer.protocols import PROTOCOLS

    lines = []
    for protocol in PROTOCOLS.values():
        lines.append(f"{protocol.name:20s} {protocol.title}")
        if protocol.variants != ("",):
            first, *others = protocol.variants
            lines.append(f"{'':20s} --variant {', '.join([f'{first} (default)', *others])}")
        lines.append(f"{'':20s} measures {', '.join(protocol.metrics)}")
        lines.append(f"{'':20s} reads {', '.join(protocol.datasets)}")
    return "\n".join(lines)


def _config_text(args) -> str:
    from d2_transfer.resolve import resolve

    if not args.protocol:
        raise InputError("--print-config needs --protocol NAME (see --list)")
    _check_processes(args)
    if args.train_json:
        _check_custom(args)
    words = [args.weights, *args.overrides] if args.weights else []
    weights, overrides = ("", words) if len(words) % 2 == 0 else (words[0], words[1:])
    cfg = resolve(
        args.protocol,
        args.variant,
        weights="" if weights == "random" else weights,
        gpus=args.gpus and args.gpus * args.num_machines,
        mini=args.mini,
        overrides=overrides,
        keep_batch=args.keep_batch,
        custom=_custom(args) if args.train_json else None,
    )
    return cfg.dump()


def _check_arguments(args) -> None:
    needed = {"WEIGHTS": args.weights, "--protocol": args.protocol, "-o": args.output_dir}
    if missing := [name for name, value in needed.items() if not value]:
        raise InputError(f"{' and '.join(missing)} missing (see 'densessl transfer --help')")
    for name, value, least in (("--trials", args.trials, 1), ("--seed", args.seed, 0)):
        if value < least:
            raise InputError(f"{name} is {value}; allowed: {least} or more")
    _check_processes(args)
    _check_custom(args)


def _check_processes(args) -> None:
    for flag, value in (("--gpus", args.gpus), ("--num-machines", args.num_machines)):
        if value is not None and value < 1:
            raise InputError(f"{flag} is {value}; allowed: 1 or more")


def _check_custom(args) -> None:
    custom = args.protocol.startswith("custom_")
    for name in CUSTOM:
        value = getattr(args, name)
        flag = "--" + name.replace("_", "-")
        if custom and not value:
            raise InputError(f"{flag} is missing: {args.protocol} reads your own data")
        if value and not custom:
            raise InputError(f"{flag} is '{value}', but {args.protocol} reads its own data sets")


def _transfer(args) -> int:
    from d2_transfer import datasets, protocols
    from d2_transfer.datasets import custom
    from d2_transfer.launch import Machines
    from d2_transfer.resolve import check_model, describe, describe_scaling, resolve

    protocol, variant = protocols.find(args.protocol, args.variant)
    machines = Machines.parse(args.num_machines, args.machine_rank, args.dist_url)
    cuda, gpus = _devices(args.gpus)
    own = _custom(args) if args.train_json else None
    cfg = resolve(
        args.protocol,
        variant,
        gpus=gpus * machines.count,
        mini=args.mini,
        overrides=args.overrides,
        keep_batch=args.keep_batch,
        cuda=cuda,
        custom=own,
    )
    used = cfg.DATASETS.TEST if args.eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    data = own or datasets.check(used, args.data, stand_in=args.mini)
    folder = Path(args.output_dir).absolute()
    if not args.eval_only:
        _check_disk(folder, protocol, args.trials)
    from d2_transfer import evaluate_only, summary, trials, weights

    find = evaluate_only.trained if args.eval_only else weights.prepare
    try:
        folder.mkdir(parents=True, exist_ok=True)
        logger = log.setup(folder, machines.rank)
    except OSError as error:
        raise InputError(f"-o {args.output_dir} cannot be written to: {error.strerror}") from None
    run = trials.Run(
        folder=folder,
        protocol=protocol.name,
        variant=variant,
        mini=args.mini,
        weights=find(args.weights, folder, cfg),
        data=data,
        gpus=gpus,
        machines=machines,
    )
    _say(logger, args, run, cuda)
    trials.register(run)
    check_model(cfg)
    if args.eval_only:
        return evaluate_only.run(run, cfg)
    if machines.first:
        if own:
            logger.info(custom.describe(own))
        logger.info(describe(cfg, run.processes))
        if not args.mini and not args.keep_batch:
            source = resolve(args.protocol, variant, custom=own)
            ours = resolve(args.protocol, variant, gpus=run.processes, custom=own)
            if scaled := describe_scaling(source, ours, run.processes):
                logger.info(scaled)
    records, failed = trials.run_trials(run, cfg, args.trials, args.seed)
    if records:
        print(summary.table(protocol.name, records))
        logger.info("records in %s; a paper-style table: densessl table %s", folder, folder)
    if failed:
        problems = "; ".join(f"trial {trial}: {problem}" for trial, problem in failed.items())
        raise DenseSSLError(
            f"{len(failed)} of {args.trials} trials failed; the same command runs them again "
            f"({problems})"
        )
    return 0


def _custom(args):
    from d2_transfer.datasets import custom

    paths = (getattr(args, name) for name in CUSTOM)
    return custom.read(*paths, need_masks=args.protocol == "custom_mask")


def _say(logger, args, run, cuda: bool) -> None:
    from d2_transfer.protocols import PROTOCOLS

    variant = f", variant {run.variant}" if run.variant else ""
    if run.variant and args.variant is None:
        others = [name for name in PROTOCOLS[run.protocol].variants if name != run.variant]
        variant += f" (the default; others: {', '.join(others)})" if others else ""
    size = " as a miniature" if run.mini else ""
    doing = "evaluation of" if args.eval_only else "from"
    logger.info("%s%s%s, %s %s", run.protocol, variant, size, doing, run.weights.method)
    if not cuda:
        norm = (
            "BN, whose statistics in one process are SyncBN's"
            if run.processes == 1
            else "naiveSyncBN"
        )
        logger.info("no CUDA device: on the CPU, with %s, without AMP", norm)


def _devices(wanted: int | None) -> tuple[bool, int]:
    """Whether there is CUDA, and how many processes to train with."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count and wanted and wanted > count:
        raise InputError(f"--gpus is {wanted}, but this machine has {count}")
    return count > 0, wanted or max(count, 1)


def _check_disk(folder: Path, protocol, trials: int) -> None:
    """Finished trials keep their model; the one that runs has two checkpoints at a time."""
    place = folder
    while not place.exists():
        place = place.parent
    model = protocol.parameters * 4e6  # bytes
    trials -= len(list(folder.glob("trial_*/result.json")))
    needed = max(trials, 0) * model + 4 * model + 200e6
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{folder} is on a disk with {free / 1e9:.1f} GB free; {trials} trials of "
            f"{protocol.name} need about {needed / 1e9:.1f} GB: free some, or give another -o"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
