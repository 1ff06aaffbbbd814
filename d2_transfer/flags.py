"""The flags of ``densessl transfer``, each declared once: the command line, ``submit transfer``,
pipelines, commands of jobs and the checks of what is given come from it."""

from argparse import ArgumentParser
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from densessl.core import options


@dataclass(frozen=True)
class Flag:
    """``name`` with underscores, as argparse has it; without a ``metavar`` it takes no value.

    ``spelled``: where that is not ``--name``. ``rule``: of a number, as ``core/options.py`` has
    them. ``own``: it names the user's own data; ``path``: a file or folder of them. ``job``:
    ``submit transfer`` takes it, too. ``config``: the protocol's config depends on it.
    """

    name: str
    help: str
    metavar: str | None = None
    kind: type | None = None
    default: Any = None
    spelled: tuple[str, ...] = ()
    rule: str = ""
    own: bool = False
    path: bool = False
    job: bool = True
    config: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        return self.spelled or ("--" + self.name.replace("_", "-"),)

    @property
    def option(self) -> options.Option:
        """What it may be."""
        if self.metavar is None:
            return options.option(False)
        rules = [self.rule] if self.rule else []
        return options.option(self.default, *rules, kinds=(self.kind or str,))


def _own(
    name: str,
    metavar: str,
    text: str,
    kind: type | None = None,
    rule: str = "",
    config: bool = False,
) -> Flag:
    path = metavar in ("FILE", "DIR", "PATH")
    return Flag(name, text, metavar, kind, rule=rule, own=True, path=path, config=config)


def _of_split(name: str) -> tuple[Flag, ...]:
    return (
        _own(f"{name}_json", "FILE", f"custom_*: {name} annotations"),
        _own(f"{name}_images", "DIR", f"custom_*: {name} images"),
        _own(f"{name}_masks", "DIR", f"custom_semseg: {name} labels"),
    )


ALL = (
    Flag(
        "protocol",
        "one of --list, path/to/file.py:Name, or your path/to/config.yaml or .py",
        "NAME",
    ),
    Flag("variant", "where a protocol has two; see --list", "NAME", config=True),
    Flag(
        "imports",
        "a Python file of yours, which is run: it registers data sets, heads, evaluators",
        "FILE",
        spelled=("--import",),
        path=True,
        config=True,
    ),
    Flag("trials", "how many fine-tunings", "K", int, 5, rule=">= 1"),
    Flag("trial", "only this one of them; others may run meanwhile", "K", int, job=False),
    Flag("seed", "of the first trial; the next have +1", "SEED", int, 1, rule=">= 0"),
    Flag("output_dir", "where everything is written", "DIR", spelled=("-o", "--output-dir")),
    Flag("data", "the data sets; else DETECTRON2_DATASETS", "DIR"),
    Flag(
        "gpus",
        "processes on this machine; else every GPU there is",
        "N",
        int,
        spelled=("--gpus", "--num-gpus"),
        rule=">= 1",
        job=False,  # of a job it is the cluster's
    ),
    Flag(
        "keep_batch",
        "on fewer GPUs the source's images a step, instead of a smaller batch and learning "
        "rate and a longer schedule: of detection and segmentation",
        config=True,
    ),
    Flag("num_machines", "that share DIR", "M", int, 1, rule=">= 1", job=False),
    Flag("machine_rank", "0 to M-1", "R", int, 0, job=False),
    Flag("dist_url", "tcp://HOST:PORT of machine 0", "URL", job=False),
    Flag(
        "stall_timeout",
        "end all processes when none makes progress for so long, with their stacks in the log; "
        "0: never",
        "SECONDS",
        float,
        600.0,
        rule=">= 0",
    ),
    Flag("eval_only", "evaluate WEIGHTS, a trial's model_final.pth, and train nothing", job=False),
    _own("train", "PATH", "custom_*: your own data in any form, see 'densessl data'"),
    _own("val", "PATH", "the same for validation; else that of PATH, else a part of it"),
    _own("val_share", "PERCENT", "that part (20)", int, ">= 1, <= 90"),
    _own("groups", "FILE", "images that stay together, NAME,GROUP a line; else by their names"),
    _own("labels", "AMOUNT", "train with so many of the images alone: 300, or 10%%", config=True),
    _own("data_seed", "SEED", "of that part, and of --labels (0)", int, ">= 0", config=True),
    _own(
        "channel_files",
        "WORDS",
        "each channel of an image is a file of its own: what their names differ in, as _B02,_B03",
    ),
    *_of_split("train"),
    *_of_split("val"),
    _own("classes", "FILE", "custom_semseg: their names, one a line"),
    _own(
        "ignore",
        "N",
        "custom_semseg: the value of pixels without a class (255); 0: classes count from 1",
        int,
    ),
    _own("image_suffix", "END", "custom_semseg: image files are NAME + END"),
    _own("mask_suffix", "END", "custom_semseg: mask files are NAME + END"),
    Flag("mini", "a miniature for two cores and scenes", config=True),
    Flag("list", "print the protocols", job=False),
    Flag(
        "print_config",
        "print the complete config as YAML (for the source's GPUs unless --gpus says others)",
        job=False,
    ),
    Flag("official", "with --print-config: as plain Detectron2, 0.5 or main, loads it", job=False),
)
BY_NAME = {flag.name: flag for flag in ALL}
OWN = tuple(flag.name for flag in ALL if flag.own)
OF_JOBS = tuple(flag.name for flag in ALL if flag.job)
PATHS = tuple(flag.name for flag in ALL if flag.path)


def add(
    parser: ArgumentParser, names: Collection[str] | None = None, required: Collection[str] = ()
) -> None:
    """Add them to a verb's parser: all, or those of ``names``."""
    for flag in ALL if names is None else map(BY_NAME.__getitem__, names):
        more: dict[str, Any] = {"action": "store_true"}
        if flag.metavar:
            kind = options.argument(flag.rule, flag.kind or int) if flag.rule else flag.kind
            more = {"metavar": flag.metavar, "type": kind, "default": flag.default}
            more |= {"required": flag.name in required}
        parser.add_argument(*flag.words, dest=flag.name, help=flag.help, **more)


def read(values: Mapping[str, Any], names: Iterable[str], where: str) -> dict[str, Any]:
    """Those of ``names`` that a file has, as the command line would have them; InputError."""
    return options.read(values, {name: BY_NAME[name].option for name in names}, where)


def of_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` (by name) that a protocol's config depends on."""
    return {flag.name: values[flag.name] for flag in ALL if flag.config and flag.name in values}


def given_words(values: Mapping[str, Any]) -> list[str]:
    """Those of ``values`` (by name) that are not the default, as words of a command."""
    words: list[str] = []
    for name, value in values.items():
        flag = BY_NAME[name]
        if flag.metavar is None:
            words += [shown(name)] if value else []
        elif value is not None and value != flag.default:
            words += [shown(name), str(value)]
    return words


def shown(name: str) -> str:
    """How a flag is written in messages and in commands."""
    return BY_NAME[name].words[0]
