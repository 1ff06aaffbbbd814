"""W&B and MLflow: the real ones where they are installed, in their modes without a service."""

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from densessl.core import trackers
from densessl.core.errors import EnvironmentLacks, StoppedEarly
from densessl.pretrain.engine.train import train
from densessl.pretrain.main import main


@pytest.fixture
def warnings(caplog):
    logging.getLogger("densessl").propagate = True
    return lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.fixture(autouse=True)
def own_settings(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def stop_at(step):
    return lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == step else None


def stopped_and_resumed(cfg):
    """Two sessions of one run."""
    with pytest.raises(StoppedEarly):
        train(cfg, stop_at(5))
    cfg.DATA.WORKERS = 1  # a free option, which the second session has otherwise
    train(cfg)


def warned(cfg, title):
    """The lines of the log in which a tracker is spoken of as failing."""
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()
    return [line for line in log.splitlines() if f"WARNING {title}: " in line]


def lines(cfg):
    """What ``metrics.jsonl`` has: the numbers by step."""
    text = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return {line.pop("iteration"): line for line in found}


def records(path):
    """The records of a file of W&B: LevelDB's log format after seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # a block ends in zeros
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_wandb_has_the_lines_of_both_sessions_under_one_run(tiny):
    pytest.importorskip("wandb")
    cfg = tiny("simsiam", None, "LOG.WANDB", "dense")
    stopped_and_resumed(cfg)
    files = sorted(Path(cfg.OUTPUT_DIR).glob("trackers/wandb/offline-run-*/*.wandb"))
    found, config, runs = {}, {}, set()
    for record in (record for file in files for record in records(file)):
        if record.WhichOneof("record_type") == "run":
            runs.add((record.run.run_id, record.run.project, record.run.display_name))
        elif record.WhichOneof("record_type") == "config":
            for item in record.config.update:
                config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif record.WhichOneof("record_type") == "history":
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            numbers = {name: value for name, value in values.items() if name[0] != "_"}
            found[record.history.step.num] = numbers
    assert len(files) == 2 and len(runs) == 1
    assert {(project, name) for _, project, name in runs} == {("dense", "run")}
    assert config["METHOD.NAME"] == "simsiam" and config["DATA.WORKERS"] == 1
    assert found == lines(cfg) and list(found) == [2, 4, 6, 8, 9]
    assert not warned(cfg, "W&B")


def test_mlflow_has_the_lines_of_both_sessions_under_one_run(tiny):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    cfg = tiny("simsiam", None, "LOG.MLFLOW", "dense")
    stopped_and_resumed(cfg)
    client = mlflow.MlflowClient(f"sqlite:///{cfg.OUTPUT_DIR}/trackers/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("dense").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["METHOD.NAME"] == "simsiam"
    assert run.data.params["DATA.WORKERS"] == "0" and run.data.tags["DATA.WORKERS"] == "1"
    found: dict = {}
    for name in run.data.metrics:
        for each in client.get_metric_history(run.info.run_id, name):
            found.setdefault(each.step, {})[name] = each.value
    assert found == lines(cfg)
    assert not warned(cfg, "MLflow")


def test_a_server_that_is_not_there_is_one_warning(tiny, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cfg = tiny("simsiam", None, "LOG.MLFLOW", "dense", "SOLVER.MAX_STEPS", 4)
    assert train(cfg).is_file() and list(lines(cfg)) == [2, 4]
    assert len(warned(cfg, "MLflow")) == 1


@pytest.mark.parametrize("option, package", [("LOG.WANDB", "wandb"), ("LOG.MLFLOW", "mlflow")])
def test_one_that_is_not_installed_is_said_before_any_work(tiny, monkeypatch, option, package):
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    cfg = tiny("simsiam")
    words = ["METHOD.NAME", "simsiam", "DATA.PATH", cfg.DATA.PATH, "OUTPUT_DIR", cfg.OUTPUT_DIR]
    with pytest.raises(EnvironmentLacks, match=f"{option}.*pip install '{package}"):
        main(["--config", "simsiam", *words, option, "dense"])
    assert not Path(cfg.OUTPUT_DIR).exists()


class Service:
    """A tracker that takes nothing until it is ``up``."""

    title = "the service"

    def __init__(self, up):
        self.up, self.tried, self.taken = up, threading.Event(), []

    def _take(self, what):
        self.tried.set()
        if not self.up.is_set():
            raise ConnectionError("no answer")
        self.taken.append(what)

    def begin(self):
        self._take("begin")

    def write(self, step, values):
        self._take((step, values))

    def end(self, exit_code):
        self._take(exit_code)


def test_lines_wait_for_a_service_that_fails(warnings):
    service = Service(threading.Event())
    sending = trackers.Sending(service)
    sending.write(1, {"loss": 1.0, "stat": float("nan"), "more": None})
    assert service.tried.wait(60)
    service.up.set()
    sending.write(2, {"loss": 0.5})
    sending.close(75)
    assert service.taken == ["begin", (1, {"loss": 1.0}), (2, {"loss": 0.5}), 75]
    assert len(warnings()) == 1 and "the service: no answer" in warnings()[0]


def test_the_end_of_a_run_does_not_wait_for_ever(warnings, monkeypatch):
    monkeypatch.setattr(trackers, "WAIT", 0.1)
    service = Service(threading.Event())
    service.begin = service.up.wait  # which never answers
    trackers.Sending(service).close()
    assert len(warnings()) == 1 and service.taken == []
    service.up.set()
