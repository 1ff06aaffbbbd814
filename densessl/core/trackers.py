"""Weights & Biases and MLflow: the lines of ``metrics.jsonl``, where teams look at their runs.

Each is imported only where it is asked for, and is spoken to by a thread of its own: no step waits
for it, and what goes wrong with it is a warning, for ``metrics.jsonl`` has everything.
"""

import importlib
import logging
import math
import os
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .errors import EnvironmentLacks
from .files import read_text, write_text
from .names import one_line

WAIT = 60.0  # seconds that the end of a run waits for a tracker at most
LONGEST = 500  # characters of a parameter, in any version of MLflow

logger = logging.getLogger("densessl")


class Wandb:
    """A run of W&B in ``folder``, in its offline mode unless ``WANDB_MODE`` says otherwise."""

    title = "W&B"

    def __init__(self, project: str, name: str, folder: Path, config: Mapping[str, Any]):
        self.project, self.name, self.folder, self.config = project, name, folder, config
        self._run: Any = None

    def begin(self) -> None:
        """Start the run, or resume the one that was started here."""
        import wandb

        known = self.folder / "wandb_run.txt"
        if not known.is_file():
            write_text(known, uuid.uuid4().hex[:8] + "\n")
        self._run = wandb.init(
            project=self.project,
            name=self.name,
            id=read_text(known).strip(),
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=os.environ.get("WANDB_DIR", self.folder),
            reinit="create_new",  # one that the caller has open stays theirs
            settings=wandb.Settings(silent=True, console="off", finish_timeout=WAIT),
        )
        self._run.config.update(dict(self.config), allow_val_change=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step."""
        self._run.log(dict(values), step=step)

    def end(self, exit_code: int) -> None:
        """Close the run; the next session of it opens it again."""
        offline, at = self._run.settings.mode == "offline", Path(self._run.dir).parent
        self._run.finish(exit_code=exit_code)
        if offline:
            logger.info("W&B has this run in a file; to send it: wandb sync %s", one_line(at))


class MLflow:
    """A run of MLflow: in a database in ``folder`` unless ``MLFLOW_TRACKING_URI`` names another."""

    title = "MLflow"

    def __init__(self, experiment: str, name: str, folder: Path, config: Mapping[str, Any]):
        self.experiment, self.name, self.folder = experiment, name, folder
        self.config = {key: str(value)[:LONGEST] for key, value in config.items()}
        self._client: Any = None
        self._run = ""

    def begin(self) -> None:
        """Start the run, or resume the one that was started here."""
        from mlflow import MlflowClient

        self.folder.mkdir(parents=True, exist_ok=True)
        # A database: MLflow's folders of files cannot have both loss and loss/image.
        database = f"sqlite:///{self.folder.absolute()}/mlflow.db"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or database)
        known = self.folder / "mlflow_run.txt"
        if known.is_file():
            self._run = read_text(known).strip()
            self._client.update_run(self._run, status="RUNNING")
        else:
            found = self._client.get_experiment_by_name(self.experiment)
            where = (
                found.experiment_id if found else self._client.create_experiment(self.experiment)
            )
            self._run = self._client.create_run(where, run_name=self.name).info.run_id
            write_text(known, self._run + "\n")
        before = self._client.get_run(self._run).data.params
        for key, value in self.config.items():
            if key not in before:
                self._client.log_param(self._run, key, value)
            elif before[key] != value:  # a parameter stays as it was
                self._client.set_tag(self._run, key, value)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, exit_code: int) -> None:
        """Close the run; the next session of it opens it again."""
        status = {0: "FINISHED", 75: "KILLED"}.get(exit_code, "FAILED")
        self._client.set_terminated(self._run, status=status)


# The option that asks for it: what is imported, what pip installs, what it is.
TRACKERS: dict[str, tuple[str, str, Callable[..., Wandb | MLflow]]] = {
    "LOG.WANDB": ("wandb", "wandb>=0.31", Wandb),
    "LOG.MLFLOW": ("mlflow", "mlflow>=3", MLflow),
}


def require(options: Mapping[str, Any]) -> None:
    """Import the trackers that ``options``, by their names, ask for; EnvironmentLacks for one that
    is not installed or does not load."""
    for option, (module, requirement, _) in TRACKERS.items():
        if not options[option]:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # an import runs anything
            raise EnvironmentLacks(
                f"{option}: {module} does not load ({one_line(error)}); fix it with: "
                f"pip install '{requirement}', or leave {option} empty"
            ) from None


def opened(options: Mapping[str, Any], folder: Path) -> list["Sending"]:
    """What ``options`` ask for, for the run in ``folder``; ``options`` are its parameters."""
    where = folder / "trackers"
    return [
        Sending(tracker(options[option], folder.absolute().name, where, options))
        for option, (_, _, tracker) in TRACKERS.items()
        if options[option]
    ]


class Sending:
    """Hands the lines of a run to a tracker, in a thread of its own.

    What it does not take waits, and is tried again with the next line.
    """

    def __init__(self, tracker: Wandb | MLflow):
        self._tracker = tracker
        self._warned = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._jobs.put(tracker.begin)
        self._thread = threading.Thread(target=self._work, name=tracker.title, daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """The numbers of a step; what is none, or not finite, is left out."""
        numbers = {
            name: float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        self._jobs.put(partial(self._tracker.write, step, numbers))

    def close(self, exit_code: int = 0) -> None:
        """End the session of the run; waits for the tracker, but not for long."""
        self._jobs.put(partial(self._tracker.end, exit_code))
        self._jobs.put(None)
        self._thread.join(WAIT)
        if self._thread.is_alive():
            self._warn(f"it has not taken all lines {WAIT:.0f} s after the end")

    def _work(self) -> None:
        waiting: deque[Callable[[], None]] = deque()
        while (job := self._jobs.get()) is not None:
            waiting.append(job)
            try:
                while waiting:
                    waiting[0]()
                    waiting.popleft()
            except Exception as error:  # of the network, the disk, a service, a library
                self._warn(one_line(error) or type(error).__name__)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: %s; training continues, metrics.jsonl has every line, and what %s lacks is "
                "tried again with each new one",
                self._tracker.title,
                reason,
                self._tracker.title,
            )
