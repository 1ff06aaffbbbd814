"""``densessl submit``: the same work as SLURM jobs."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from densessl.core import log
from densessl.core.errors import InputError, nearest
from densessl.core.options import pairs
from densessl.core.parser import Parser
from densessl.d2_transfer import flags as of_transfer
from densessl.d2_transfer import own_data
from densessl.d2_transfer.protocols import find

from . import flags, jobs, state
from .data import Data, folders_of
from .graph import Job
from .settings import Cluster

USAGE = """\
usage: densessl submit {pretrain,transfer,pipeline,retry} …

The same work as SLURM jobs: each saves before its time limit and is queued again.

  pretrain --config C [-o DIR] [KEY VALUE …]    a pretraining, one process a GPU
  transfer WEIGHTS --protocol P -o DIR          its trials as a job array
  pipeline FILE -o DIR                          a graph of jobs (as densessl reproduce)
  retry DIR                                     what failed, was stopped or was never submitted

'densessl submit VERB --help' says more of each; the documentation's page 'On a SLURM cluster' tells
the whole way.
"""


def main(argv: list[str]) -> int:
    """Submit a verb's work, or what is left of it."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    verb, *rest = argv
    if verb not in VERBS:
        hint = nearest(verb, VERBS)
        meant = f" Did you mean '{hint}'?" if hint else ""
        raise InputError(f"unknown work '{verb}'.{meant} Allowed: {', '.join(VERBS)}")
    return VERBS[verb](rest)


def pretrain(argv: list[str]) -> int:
    """Submit a pretraining, one process a GPU.

    Found unfinished, it resumes. KEY VALUE pairs change options of the config file, as in
    'SOLVER.EPOCHS 100 DATA.WORKERS 8'; KEY=VALUE does so, too.
    """
    parser = Parser(
        prog="densessl submit pretrain", description=pretrain.__doc__, keys=_pretrain_keys
    )
    parser.add_argument("--config", metavar="FILE", help="a YAML file, or a built-in config")
    parser.add_argument(
        "-o", "--output-dir", metavar="DIR", help="OUTPUT_DIR, unless that is given"
    )
    parser.add_argument(
        "--change", nargs="+", default=[], metavar="KEY", help="as densessl pretrain"
    )
    flags.add(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="options by name")
    args = parser.parse_intermixed_args(argv)
    if not args.config:
        raise InputError("--config is missing: a YAML file, or a name of densessl pretrain --list")
    from densessl.pretrain.engine.changes import named

    change, values = named(args.change)
    args.overrides = [*pairs(args.overrides), *values]
    cluster = flags.read(args)
    folder, overrides = _output_dir(args)
    how = {"nodes": args.nodes, "gpus": args.gpus, "change": change}
    work = [jobs.pretrain_job(args.config, overrides, folder, **how)]

    from densessl.pretrain import config as pretraining

    cfg = pretraining.load(args.config, [*overrides, "OUTPUT_DIR", str(folder)])
    sources = pretraining.split_paths(cfg.DATA.PATH)
    paths = [path for path in sources if isinstance(path, Path)]  # of others the jobs say it
    missing = [f"DATA.PATH {path}" for path in paths if not path.exists()]
    return _send(work, folder, cluster, args.dry_run, cfg, missing)


def _pretrain_keys() -> list[str]:
    from densessl.pretrain import config as pretraining

    return pretraining.option_names(pretraining.defaults())


def _output_dir(args) -> tuple[Path, list[str]]:
    """Where the run goes, and the overrides without it."""
    from densessl.pretrain import config as pretraining

    cfg = pretraining.load(args.config, args.overrides)
    pretraining.check(cfg, args.nodes * max(args.gpus, 1))
    words = args.overrides
    pairs = list(zip(words[::2], words[1::2], strict=True))
    given = [value for key, value in pairs if key == "OUTPUT_DIR"]
    if given and args.output_dir:
        raise InputError(f"-o {args.output_dir} and OUTPUT_DIR {given[-1]}: give one of them")
    left = [word for pair in pairs if pair[0] != "OUTPUT_DIR" for word in pair]
    return Path(args.output_dir or cfg.OUTPUT_DIR).absolute(), left


def transfer(argv: list[str]) -> int:
    """Submit the trials of a protocol as a job array; a finished trial is not run again.

    WEIGHTS is what 'densessl transfer' takes. A checkpoint is converted by a job that comes before.
    KEY VALUE pairs change options of the protocol's config.
    """
    parser = Parser(prog="densessl submit transfer", description=transfer.__doc__)
    parser.add_argument("weights", metavar="WEIGHTS", help="a checkpoint, 'random' or 'random_bn'")
    of_transfer.add(parser, of_transfer.OF_JOBS, required=("protocol", "output_dir"))
    parser.add_argument("--method", metavar="NAME", help="of a checkpoint that cannot tell it")
    flags.add(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="options by name")
    args = parser.parse_intermixed_args(argv)
    args.overrides = pairs(args.overrides)
    cluster = flags.read(args)
    from densessl.d2_transfer.resolve import check_words

    config = of_transfer.of_config(vars(args))
    check_words(args.protocol, args.overrides, args.gpus * args.nodes, **config)
    protocol = find(args.protocol)[0]
    given = {name: getattr(args, name) for name in of_transfer.OF_JOBS}
    paths = {name: given[name] for name in (*of_transfer.PATHS, "data") if given[name]}
    given |= {name: str(Path(path).absolute()) for name, path in paths.items()}
    own = own_data.of(protocol, given)
    folder = Path(given.pop("output_dir")).absolute()
    weights, work = _converted(args, folder)
    size = {"options": args.overrides, "nodes": args.nodes, "gpus": args.gpus}
    trials = jobs.transfer_jobs(
        weights, folder=folder, needs=[job.name for job in work], own=own, **size, **given
    )

    cfg = jobs.resolved(args.protocol, custom=own, **size, **config).cfg
    home = Path(args.data or os.environ.get("DETECTRON2_DATASETS", "datasets"))
    # a miniature takes what scenes have in place of what is not there
    missing = [] if own or args.mini else Data(home, home).missing(folders_of(cfg))
    return _send([*work, *trials], folder, cluster, args.dry_run, cfg, missing)


def _converted(args, folder: Path) -> tuple[str | Path, list[Job]]:
    """What the trials start from, and the job that makes it, if one must."""
    if args.weights in jobs.RANDOM_STARTS:
        return args.weights, []
    if args.weights.startswith(jobs.SUPERVISED):
        file = Path(args.weights.removeprefix(jobs.SUPERVISED)).absolute()
        return f"{jobs.SUPERVISED}{file}", []
    given = Path(args.weights).absolute()
    if given.suffix == ".pkl":  # converted already
        return given, []
    output = folder / f"weights{find(args.protocol)[0].suffix}"
    return output, [jobs.convert_job(given, output, method=args.method)]


def _send(work, folder: Path, cluster: Cluster, dry_run: bool, cfg, missing: Sequence[str]) -> int:
    """Submit, or print what would be; data that are missing here may be on the nodes."""
    logger = log.setup()
    for each in missing:
        logger.warning("%s is not on this machine; the jobs need it on theirs", each)
    if dry_run:
        sys.stdout.write(flags.preview(work, folder, cluster))
        sys.stdout.write(f"\n# the resolved config\n{cfg.dump()}")
        return 0
    flags.submit(work, folder, cluster)
    return 0


def retry(argv: list[str]) -> int:
    """Submit again what failed, was stopped or cancelled, or was never submitted, and what waits
    for it. What is finished, queued or running is left alone.
    """
    parser = Parser(prog="densessl submit retry", description=retry.__doc__)
    parser.add_argument("folder", metavar="DIR", help="of a submission")
    folder = Path(parser.parse_args(argv).folder).absolute()
    work, settings = state.read_graph(folder)
    if not settings:
        raise InputError(
            f"the jobs of {folder} ran on this machine, not on a cluster; run the same command "
            "again to resume"
        )
    log.setup()
    try:
        cluster = Cluster.from_dict(settings)
    except InputError as error:
        raise InputError(f"{folder / state.GRAPH}: {error}") from None
    flags.submit(work, folder, cluster)
    return 0


def pipeline(argv: list[str]) -> int:
    """Submit a pipeline file's jobs: ``densessl reproduce``, with batch files in its dry run."""
    from . import reproduce

    args = reproduce.parser().parse_args(argv)
    code = reproduce.main(argv)
    if args.dry_run and not args.local:
        found = reproduce.load(args)
        sys.stdout.write("\n" + flags.preview(found.jobs, found.folder, flags.read(args)))
    return code


VERBS: dict[str, Callable[[list[str]], int]] = {
    "pretrain": pretrain,
    "transfer": transfer,
    "pipeline": pipeline,
    "retry": retry,
}
