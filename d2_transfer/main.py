"""``densessl transfer WEIGHTS --protocol NAME``: fine-tune, evaluate, average over trials."""

import sys

from densessl.core.errors import InputError
from densessl.core.overrides import is_option, pairs
from densessl.core.parser import Parser

from . import own_data

DESCRIPTION = """\
Fine-tune pretrained weights under a paper's protocol with Detectron2's own trainer, evaluate, and
average over trials. A trial that is finished is not run again; an interrupted one goes on.

WEIGHTS is a checkpoint of 'densessl pretrain' (converted first, with its proof), a converted .pkl,
'random', 'random_bn' (frozen protocols: a random network with the data's batch-norm statistics), or
'supervised:FILE' with a torchvision state dict. KEY VALUE pairs change Detectron2's
config last of all; 'densessl transfer --protocol NAME --print-config' shows every key.
"""


def parser() -> Parser:
    made = Parser(prog="densessl transfer", description=DESCRIPTION, add_help=True)
    made.add_argument("weights", nargs="?", metavar="WEIGHTS", help="what to start from")
    made.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="Detectron2 options")
    made.add_argument("--protocol", metavar="NAME", help="one of --list")
    made.add_argument("--variant", metavar="NAME", help="where a protocol has two; see --list")
    made.add_argument("--trials", type=int, default=5, metavar="K", help="how many fine-tunings")
    made.add_argument(
        "--trial", type=int, metavar="K", help="only this one of them; others may run meanwhile"
    )
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
    own_data.add_flags(made)
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
    if args.weights and is_option(args.weights):
        args.weights, args.overrides = None, [args.weights, *args.overrides]
    args.overrides = pairs(args.overrides)
    _check_arguments(args)
    from .resolve import check_words

    check_words(args.protocol, args.variant, args.overrides, args.mini, args.gpus)
    from .command import transfer

    return transfer(args)


def listing() -> str:
    """The protocols with their variants, as text."""
    from .protocols import PROTOCOLS

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
    from .protocols import room
    from .resolve import check_words, resolve

    if not args.protocol:
        raise InputError("--print-config needs --protocol NAME (see --list)")
    _check_processes(args)
    own = None
    if any(getattr(args, name) is not None for name in own_data.ALL):
        own = own_data.of(args.protocol, args)
    words = [args.weights, *args.overrides] if args.weights else []
    bare = len(words) % 2 == 0 and not any("=" in word for word in words)
    alone = not words or is_option(words[0]) or bare
    weights, overrides = ("", words) if alone else (words[0], words[1:])
    check_words(args.protocol, args.variant, overrides, args.mini, args.gpus)
    gpus = args.gpus and args.gpus * args.num_machines
    if measured := room(args.protocol):
        more = {"custom": own} if own else {}
        cfg = measured.resolve(args.protocol, args.variant, gpus or 1, args.mini, overrides, **more)
    else:
        cfg = resolve(
            args.protocol,
            args.variant,
            gpus=gpus,
            mini=args.mini,
            overrides=overrides,
            keep_batch=args.keep_batch,
            custom=own,
        )
    cfg.defrost()
    cfg.MODEL.WEIGHTS = "" if weights == "random" else weights
    return cfg.dump()


def _check_arguments(args) -> None:
    needed = {"WEIGHTS": args.weights, "--protocol": args.protocol, "-o": args.output_dir}
    if missing := [name for name, value in needed.items() if not value]:
        raise InputError(f"{' and '.join(missing)} missing (see 'densessl transfer --help')")
    for name, value, least in (("--trials", args.trials, 1), ("--seed", args.seed, 0)):
        if value < least:
            raise InputError(f"{name} is {value}; allowed: {least} or more")
    if args.trial is not None and not 1 <= args.trial <= args.trials:
        raise InputError(
            f"--trial is {args.trial}; allowed with --trials {args.trials}: 1 to {args.trials}"
        )
    _check_processes(args)
    own_data.given(args.protocol, args)


def _check_processes(args) -> None:
    for flag, value in (("--gpus", args.gpus), ("--num-machines", args.num_machines)):
        if value is not None and value < 1:
            raise InputError(f"{flag} is {value}; allowed: 1 or more")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
