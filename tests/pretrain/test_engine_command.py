"""``densessl pretrain`` as people and machines call it: its messages, exit codes and signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import densessl
from densessl.pretrain.engine.train import train

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"--config is missing: a YAML file, or a built-in one .*moco_v2"),
        (["--config", "moco_v3"], r"'moco_v3'. Did you mean 'moco_v"),
        (["--confg", "moco_v2"], r"--confg"),
        (["--config", "moco_v2", "SOLVER.EPOCH", "3"], r"'SOLVER.EPOCH'.*mean 'SOLVER.EPOCHS'"),
        (["--config", "moco_v2", "SOLVER.EPOCHS"], r"KEY VALUE pairs"),
        (["--config", "moco_v2"], r"DATA.PATH is empty"),
        (["--config", "moco_v2", "DATA.PATH", "/nowhere"], r"/nowhere does not exist"),
        (["--config", "moco_v2", "DATA.PATH", "x", "AMP", "fp8"], r"'fp8' in AMP.*bf16"),
        (["--config", "moco_v2", "DATA.PATH", "x", "DEVICE", "tpu"], r"DEVICE.*auto, cpu, cuda"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    arguments, message, capsys, monkeypatch, tmp_path
):
    import re

    monkeypatch.chdir(tmp_path)
    assert densessl.main(["pretrain", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("densessl pretrain: ") and re.search(message, said)
    assert "Traceback" not in said


def test_wrong_options_leave_no_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["pretrain", "--config", "moco_v2", "DATA.PATH", ".", "SOLVER.BASE_LR", "0"]
    assert densessl.main(command) == 2
    assert list(tmp_path.iterdir()) == []


def test_print_config_prints_every_option_and_runs_nothing(capsys, monkeypatch, tmp_path):
    from densessl.pretrain import config

    monkeypatch.chdir(tmp_path)
    command = ["pretrain", "--config", "moco_v2", "--print-config", "SEED", "4"]  # no images
    assert densessl.main(command) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["SEED"] == 4 and printed["METHOD"]["NAME"] == "moco"
    assert config.flat(printed).keys() == config.flat(config.defaults()).keys()
    assert list(tmp_path.iterdir()) == []


def command(cfg, *launcher):
    """The command line of a run, and an environment in which it computes as the tests do."""
    folder = Path(cfg.OUTPUT_DIR)
    options = folder.parent / f"{folder.name}.yaml"
    options.write_text(cfg.dump())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", *launcher, "densessl", "pretrain", "--config", str(options)]
    return {"args": line, "env": environment, "stderr": subprocess.PIPE, "text": True}


def stopped_by(number, cfg, *launcher):
    """Start a run, signal its whole process group in mid-run; (exit code, what it said)."""
    process = subprocess.Popen(**command(cfg, *launcher), start_new_session=True)
    metrics = Path(cfg.OUTPUT_DIR) / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, said = process.communicate()
    return process.returncode, said


def column(cfg, name):
    text = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text()
    return [json.loads(line)[name] for line in text.splitlines()]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_exits_75_and_the_same_command_goes_on(
    number, tiny, check_same_run, tmp_path
):
    options = ("LOG.PERIOD", 1, "CHECKPOINT.STEPS", 100, "SOLVER.EPOCHS", 5)
    cfg = tiny("moco", tmp_path / "run", "DATA.WORKERS", 2, *options)
    code, said = stopped_by(number, cfg)
    assert code == 75, said
    assert "all saved in" in said and "run the same command" in said and "Traceback" not in said
    assert 0 < len(column(cfg, "loss")) < 15
    again = subprocess.run(**command(cfg))
    assert again.returncode == 0, again.stderr
    assert "resuming after step" in again.stderr
    whole = tiny("moco", tmp_path / "whole", *options)
    train(whole)
    check_same_run(cfg.OUTPUT_DIR, whole.OUTPUT_DIR)


@pytest.mark.slow
def test_two_processes_are_one_run_stopped_or_not(tiny, check_same_run, pictures, tmp_path):
    folder = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (folder / "05.jpg").write_bytes(b"")  # one process meets it, all must count it
    options = ("DATA.PATH", folder, "LOG.PERIOD", 1, "CHECKPOINT.STEPS", 100)
    # Batch norm over few values multiplies rounding at every step (one thread or two give as
    # different a run): larger views and smaller steps keep it below what is compared.
    options += ("VIEWS.SIZE", 96, "SOLVER.BASE_LR", 1e-6)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", "-m")

    one = tiny("moco", tmp_path / "one", *options)
    train(one)
    two = tiny("moco", tmp_path / "two", *options)
    done = subprocess.run(**command(two, *launcher))
    assert done.returncode == 0, done.stderr
    assert column(two, "loss") == pytest.approx(column(one, "loss"), abs=1e-4)
    assert column(two, "grad_norm") == pytest.approx(column(one, "grad_norm"), rel=1e-3)
    assert (tmp_path / "two" / "unreadable.txt").read_text() == "05.jpg\tempty (0 bytes)\n"

    parts = tiny("moco", tmp_path / "parts", *options)
    code, said = stopped_by(signal.SIGTERM, parts, *launcher)
    assert code != 0 and said.count("all saved in") == 1, said
    assert 0 < len(column(parts, "loss")) < 9
    done = subprocess.run(**command(parts, *launcher))
    assert done.returncode == 0, done.stderr
    check_same_run(parts.OUTPUT_DIR, two.OUTPUT_DIR)


@pytest.mark.slow
def test_four_processes_that_were_stopped_are_the_same_run(tiny, check_same_run, tmp_path):
    # With two, no order of sums can differ.
    options = ("BACKBONE.GROUP_SIZE", 2, "LOG.PERIOD", 1, "CHECKPOINT.STEPS", 100)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("torch.distributed.run", "--nproc_per_node=4", f"--master_port={port}", "-m")
    whole = tiny("moco", tmp_path / "whole", *options)
    done = subprocess.run(**command(whole, *launcher))
    assert done.returncode == 0, done.stderr
    parts = tiny("moco", tmp_path / "parts", *options)
    code, said = stopped_by(signal.SIGTERM, parts, *launcher)
    assert code != 0 and 0 < len(column(parts, "loss")) < 9, said
    done = subprocess.run(**command(parts, *launcher))
    assert done.returncode == 0, done.stderr
    check_same_run(parts.OUTPUT_DIR, whole.OUTPUT_DIR)
