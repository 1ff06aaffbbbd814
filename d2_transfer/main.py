"""``densessl transfer WEIGHTS --protocol NAME``: fine-tune, evaluate, average over trials."""

import sys

from densessl.core.errors import InputError
from densessl.core.options import is_option, pairs
from densessl.core.parser import Parser

from . import flags, own_data

DESCRIPTION = """\
Fine-tune pretrained weights under a paper's protocol with Detectron2's own trainer, evaluate, and
average over trials. A trial that is finished is not run again; an interrupted one resumes.

WEIGHTS is a checkpoint of 'densessl pretrain' (converted first, with its proof), a converted .pkl,
'random', 'random_bn' (frozen protocols: a random network with the data's batch-norm statistics), or
'supervised:FILE' with a torchvision state dict. KEY VALUE pairs change Detectron2's
config last of all; 'densessl transfer --protocol NAME --print-config' shows every key.
"""


def parser() -> Parser:
    made = Parser(prog="densessl transfer", description=DESCRIPTION, add_help=True)
    made.add_argument("weights", nargs="?", metavar="WEIGHTS", help="what to start from")
    made.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="Detectron2 options")
    flags.add(made)
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
    if args.official:
        raise InputError("--official is for --print-config: add that, or leave it out")
    if args.weights and is_option(args.weights):
        args.weights, args.overrides = None, [args.weights, *args.overrides]
    args.overrides = pairs(args.overrides)
    _check_arguments(args)
    from .resolve import check_words

    check_words(args.protocol, args.overrides, args.gpus, **flags.of_config(vars(args)))
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
    from .config_files import annotated
    from .protocols import find
    from .resolve import check_words, places, resolve

    if not args.protocol:
        raise InputError("--print-config needs --protocol NAME (see --list)")
    own = None
    if any(getattr(args, name) is not None for name in flags.OWN):
        own = own_data.of(find(args.protocol)[0], vars(args))
    words = [args.weights, *args.overrides] if args.weights else []
    bare = len(words) % 2 == 0 and not any("=" in word for word in words)
    alone = not words or is_option(words[0]) or bare
    weights, overrides = ("", words) if alone else (words[0], words[1:])
    check_words(args.protocol, overrides, args.gpus, **flags.of_config(vars(args)))
    gpus = args.gpus and args.gpus * args.num_machines
    given = flags.of_config(vars(args))
    given |= {"gpus": gpus, "overrides": overrides, "custom": own}
    cfg = resolve(args.protocol, plain=not args.official, **given)
    cfg.defrost()
    cfg.MODEL.WEIGHTS = "" if weights == "random" else weights
    if not args.official:
        return annotated(cfg.dump(), places(args.protocol, args.variant, args.mini, overrides))
    if "TASK" in cfg:
        raise InputError(f"--official: {args.protocol} does not train with Detectron2")
    from .official_config import official_text

    return official_text(cfg)


def _check_arguments(args) -> None:
    from .protocols import find

    needed = {"WEIGHTS": args.weights, "--protocol": args.protocol, "-o": args.output_dir}
    if missing := [name for name, value in needed.items() if not value]:
        raise InputError(f"{' and '.join(missing)} missing (see 'densessl transfer --help')")
    if args.trial is not None and not 1 <= args.trial <= args.trials:
        raise InputError(
            f"--trial is {args.trial}; allowed with --trials {args.trials}: 1 to {args.trials}"
        )
    own_data.given(find(args.protocol)[0], vars(args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
