"""One run of a protocol: its trials' common facts, and whether a folder holds that very run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densessl.core import files, watchdog
from densessl.core.errors import InputError
from densessl.core.text import read_mapping

from . import compat, results
from .datasets.custom import Custom
from .launch import Machines
from .saved import NOTE, Saved
from .weights import Weights

if TYPE_CHECKING:
    from .classification.own import OwnImages
    from .dense_probes.own import OwnData

OF_RUN = "what a run of transfer wrote (put a good copy back, or give another -o)"
CUSTOM = "DATASETS.CUSTOM"  # hashes of the user's own annotations: training, validation


@dataclass(frozen=True)
class Run:
    """What all trials of one folder have in common."""

    folder: Path
    protocol: str
    variant: str
    mini: bool
    weights: Weights
    data: "Path | Custom | OwnData | OwnImages"  # holds the data sets, or describes the user's own
    gpus: int = 1  # of this machine
    machines: Machines = field(default_factory=Machines)
    metrics: tuple[str, ...] = ()  # the protocol's, which are printed
    stall_timeout: float = watchdog.TIMEOUT  # seconds; 0: no limit
    named: tuple[str, ...] = ()  # options that the user set
    imports: str = ""  # a file of the user's that every process runs
    only: int | None = None  # the one trial that this process does, while others do the others

    @property
    def log(self) -> str:
        """The file of the folder that this process's log goes to."""
        return log_name(self.only)

    @property
    def limit(self) -> watchdog.Limit:
        """For how long its processes may stand still."""
        return watchdog.Limit(self.stall_timeout, "--stall-timeout", self.folder / self.log)

    @property
    def lines(self) -> Path:
        """The metrics.jsonl: the folder's, or the trial's own where others run meanwhile."""
        return (self.trial_folder(self.only) if self.only else self.folder) / "metrics.jsonl"

    @property
    def processes(self) -> int:
        """Of all machines."""
        return self.gpus * self.machines.count

    def trial_folder(self, trial: int) -> Path:
        return self.folder / f"trial_{trial}"

    def has_saved(self) -> bool:
        """Whether one of its trials saved anything, by which the folder is bound to its config."""
        return any(any(self.folder.glob(f"trial_*/{name}")) for name in (NOTE, results.FILE))

    def facts(self) -> dict[str, Any]:
        """What must be the same for a folder to be resumed, beside the config."""
        found = {
            "protocol": self.protocol,
            "variant": self.variant,
            "mini": self.mini,
            "weights": self.weights.path,
            "weights_sha256": self.weights.sha256,
            "method": self.weights.method,
        }
        if own := getattr(self.data, "facts", None):  # a folder of known data sets has none
            found["data"] = own
        return found


def log_name(only: int | None) -> str:
    """Processes that do one trial each at the same time do not share a log."""
    return f"log_trial_{only}.txt" if only else "log.txt"


def finished(run: Run, cfg, trial: int, seed: int) -> results.Record | None:
    """The record of a trial that needs no more work; InputError if it is another run's."""
    folder = run.trial_folder(trial)
    if not (folder / results.FILE).is_file():
        return None
    record = results.load(folder)
    fingerprint = results.config_fingerprint(results.as_dict(cfg))
    if record.config_sha256 != fingerprint:
        other = results.config_of(record) or {}
        different = differences(other, results.flat(results.as_dict(cfg)))
        raise _other_run(folder, different, record.versions.get("detectron2"))
    found = (record.seed, record.weights["sha256"], record.protocol, record.variant)
    wanted = (seed, run.weights.sha256, run.protocol, run.variant)
    names = ("seed", "weights sha256", "protocol", "variant")
    different = [
        f"{name} {a} there, {b} here"
        for name, a, b in zip(names, found, wanted, strict=True)
        if a != b
    ]
    if different:
        raise _other_run(folder, different)
    return record


def check_trials(run: Run, cfg, trials: int, seed: int) -> None:
    """Refuse a folder whose finished or begun trials are not this run's, before one more runs."""
    for trial in range(1, trials + 1):
        if finished(run, cfg, trial, seed + trial - 1) is None:
            _check_seed(run, trial, seed + trial - 1)


def _check_seed(run: Run, trial: int, seed: int) -> None:
    folder = run.trial_folder(trial)
    if Saved(folder).begun:
        begun = read_mapping(folder / "config.yaml", OF_RUN).get("SEED")
        if begun != seed:
            raise _other_run(folder, [f"seed {begun} there, {seed} here"])


def check_folder(run: Run, cfg) -> None:
    """Refuse a folder that another run has begun: other weights, another protocol or config."""
    facts = run.folder / "run.json"
    if not facts.is_file():
        return
    of_run = files.read_object(facts, OF_RUN)
    detectron2 = of_run.pop("detectron2", None)
    different = differences(of_run, run.facts())
    written = read_mapping(run.folder / "config.yaml", OF_RUN)
    there, here = results.flat(written), results.flat(results.as_dict(cfg))
    evaluated = any(run.folder.glob(f"trial_*/{results.FILE}"))
    if not evaluated and _trained_on(there) == _trained_on(here) is not None:
        there[CUSTOM] = here[CUSTOM]  # another validation file has changed no number yet
    different += differences(there, here)
    if different and run.has_saved():  # else it may be taken over
        raise _other_run(run.folder, different, detectron2)


def _trained_on(options: dict) -> str | None:
    """The hash of the user's own training annotations; None for other data."""
    return options.get(CUSTOM, "").partition(" ")[0] or None


def differences(there: dict, here: dict) -> list[str]:
    """Of two flat configs each key that differs, with both values."""
    return [
        f"{key} {_value(there, key)} there, {_value(here, key)} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]


def _value(options: dict, key: str) -> str:
    return repr(options[key]) if key in options else "(absent)"


def _other_run(folder: Path, different: list[str], detectron2: str | None = None) -> InputError:
    """``detectron2``: the version that the other run had, where it is known."""
    some = "; ".join(different[:5]) + ("; …" if len(different) > 5 else "")
    if detectron2 and detectron2 != (here := compat.version()):
        some += f"; Detectron2 {detectron2} there, {here} here"
    return InputError(
        f"{folder} holds another run ({some}); give the same command as before, or another -o"
    )


def begin_folder(run: Run, cfg) -> None:
    """Write what the trials have in common; what killed writers left is cleared."""
    files.clear_partials(run.folder, alone=run.only is None)
    files.write_text(run.folder / "config.yaml", cfg.dump())
    version = {} if "TASK" in cfg else {"detectron2": compat.version()}
    files.write_json(run.folder / "run.json", run.facts() | version)


def begin_trial(run: Run, cfg, trial: int, seed: int) -> None:
    """The trial's folder with its own config: the seed, the folder, the weights; cleared of what
    killed writers left.

    Raises InputError when the trial was begun with another seed.
    """
    folder = run.trial_folder(trial)
    own = cfg.clone()
    own.defrost()
    own.SEED = seed
    own.OUTPUT_DIR = str(folder.absolute())
    own.MODEL.WEIGHTS = run.weights.file
    _check_seed(run, trial, seed)
    Saved(folder).clean()
    files.clear_partials(folder / "evaluation")
    files.write_text(folder / "config.yaml", own.dump())
