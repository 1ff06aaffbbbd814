"""Whole small runs: gone on with, stopped, refused, complete."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

from densessl.core.errors import EnvironmentLacks, InputError, StoppedEarly
from densessl.pretrain import config
from densessl.pretrain.engine import resume
from densessl.pretrain.engine import train as training
from densessl.pretrain.engine.checkpoint import Checkpoints
from densessl.pretrain.engine.placement import settled
from densessl.pretrain.engine.train import PretrainRun, train
from densessl.pretrain.views import apply_photometric, collate


def stop_at(*steps):
    """A real signal to this process after each of ``steps``."""

    def after_step(step):
        if step in steps:
            os.kill(os.getpid(), signal.SIGTERM)

    return after_step


def lines(cfg):
    text = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def newest(cfg):
    return Checkpoints(Path(cfg.OUTPUT_DIR) / "checkpoints").newest()[1]


def log(cfg):
    return (Path(cfg.OUTPUT_DIR) / "log.txt").read_text()


@pytest.fixture(scope="module")
def whole(tiny):
    """A run of MoCo that nothing disturbed; tests must not change it."""
    cfg = tiny("moco", None, "CHECKPOINT.KEEP", 3)
    train(cfg)
    return cfg


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of the whole run, to do with as one likes."""
    shutil.copytree(whole.OUTPUT_DIR, tmp_path / "run")
    cfg = whole.clone()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg


@pytest.fixture
def begun(copied):
    """The whole run as it was after 4 of its 9 steps, but for what the log says beyond."""
    folder = Path(copied.OUTPUT_DIR)
    (folder / "backbone_final.pth").unlink()
    for step in (8, 9):
        (folder / "checkpoints" / f"step_{step:08d}.pth").unlink()
    return copied


def test_moco_stopped_with_other_worker_counts_is_the_same_run(tiny, whole, check_same_run):
    parts = tiny("moco", None, "CHECKPOINT.KEEP", 1, "CHECKPOINT.KEEP_EVERY", 2)
    for at, workers in ((1, 1), (5, 2)):
        parts.DATA.WORKERS = workers
        with pytest.raises(StoppedEarly, match=f"after step {at} of 9"):
            train(parts, stop_at(at))
        assert newest(parts)["iteration"] == at  # also between two periods
    parts.DATA.WORKERS = 0
    train(parts)
    check_same_run(parts.OUTPUT_DIR, whole.OUTPUT_DIR)
    kept = [step for step, _ in Checkpoints(Path(parts.OUTPUT_DIR) / "checkpoints").found()]
    assert kept == [6, 9]  # that of the second epoch for good, and the newest
    assert [line["iteration"] for line in lines(parts)] == [2, 4, 6, 8, 9]


def test_setsim_stopped_with_other_worker_counts_is_the_same_run(tiny, check_same_run):
    cfg = tiny("setsim", None, "MOCO.SYMMETRIC", True, "SOLVER.MAX_STEPS", 5)
    train(cfg)
    parts = cfg.clone()
    parts.OUTPUT_DIR += "_parts"
    parts.DATA.WORKERS = 2
    with pytest.raises(StoppedEarly):
        train(parts, stop_at(3))
    train(parts)
    check_same_run(parts.OUTPUT_DIR, cfg.OUTPUT_DIR)
    assert {"loss/image", "loss/dense", "stat/positives_per_query"} <= lines(cfg)[0].keys()


def test_a_run_writes_what_it_should(whole):
    folder = Path(whole.OUTPUT_DIR)
    weights = torch.load(folder / "backbone_final.pth", weights_only=True)
    facts = {"iteration", "config", "method", "normalization", "range", "pretrain"}
    assert set(weights) == {"backbone"} | facts
    assert weights["method"] == "moco" and weights["iteration"] == 9
    assert weights["normalization"]["channel_order"] == "RGB"
    assert weights["range"] is None  # all images have 8 bits
    assert weights["pretrain"]["images"] == 24 and weights["pretrain"]["batch_size"] == 8
    assert weights["backbone"]["first.0.weight"].shape == (8, 3, 16, 16)
    assert not any(name.startswith(("fc.", "module.")) for name in weights["backbone"])
    saved = newest(whole)
    for name, value in weights["backbone"].items():
        assert torch.isfinite(value.float()).all()
        assert torch.equal(value, saved["backbone"][name])
    assert {"config.yaml", "log.txt", "metrics.jsonl", "checkpoints", "tensorboard"} <= {
        file.name for file in folder.iterdir()
    }
    line = lines(whole)[-1]
    assert line["iteration"] == 9 and line["epoch"] == 3 and line["skipped"] == 0
    for name in ("loss", "loss/image", "stat/feature_std", "lr", "grad_norm", "images_per_second"):
        assert line[name] > 0, name
    assert 0 <= line["data_wait"] <= 1
    assert len(list((folder / "checkpoints").iterdir())) == 6  # KEEP 3, and their sidecars
    assert config.load(folder / "config.yaml") == settled(whole, torch.device("cpu"))


def test_the_momentum_encoder_and_the_queue_move(whole):
    first, last = (
        torch.load(file, weights_only=True)["model"]
        for file in sorted(Path(whole.OUTPUT_DIR).glob("checkpoints/*.pth"))[::2]
    )
    moved = [name for name in first if not torch.equal(first[name], last[name])]
    assert {name.split(".")[0] for name in moved} == {name.split(".")[0] for name in first}


def test_a_complete_run_says_so_and_mends_its_weights(copied):
    final = Path(copied.OUTPUT_DIR) / "backbone_final.pth"
    weights, metrics = final.read_bytes(), (final.parent / "metrics.jsonl").read_bytes()
    final.unlink()
    assert train(copied) == final
    assert final.read_bytes() == weights
    assert (final.parent / "metrics.jsonl").read_bytes() == metrics
    assert "this run is complete (9 steps)" in log(copied)
    shutil.rmtree(final.parent / "checkpoints")  # to make room
    train(copied)
    assert final.read_bytes() == weights and not (final.parent / "checkpoints").exists()
    copied.SEED = 1
    with pytest.raises(InputError, match="SEED: 0 -> 1"):
        train(copied)
    copied.SEED = 0
    final.write_bytes(weights[:-1])
    with pytest.raises(InputError, match="has no checkpoints, and its .* is damaged"):
        train(copied)


def test_other_options_are_refused_by_name(begun):
    begun.SOLVER.BASE_LR, begun.MOCO.MOMENTUM, begun.LOG.PERIOD = 0.1, 0.9, 1
    with pytest.raises(InputError) as refused:
        train(begun)
    message = str(refused.value)
    assert "SOLVER.BASE_LR: 0.03 -> 0.1" in message
    assert "MOCO.MOMENTUM: 0.999 -> 0.9" in message
    assert "LOG.PERIOD" not in message
    assert newest(begun)["iteration"] == 4


def test_other_data_are_refused(begun, pictures, tmp_path):
    other = shutil.copytree(pictures, tmp_path / "other")
    begun.DATA.PATH = str(other)
    (other / "00.jpg").rename(other / "zz.jpg")
    with pytest.raises(InputError, match=r"as many images \(24\), but other names"):
        train(begun)
    (other / "zz.jpg").unlink()
    with pytest.raises(InputError, match="23 images now, 24 then"):
        train(begun)


def test_moved_data_and_a_damaged_checkpoint_are_the_same_run(
    copied, whole, pictures, tmp_path, different
):
    copied.DATA.PATH = str(shutil.copytree(pictures, tmp_path / "moved"))
    (Path(copied.OUTPUT_DIR) / "backbone_final.pth").unlink()
    for step in (8, 9):
        path = Path(copied.OUTPUT_DIR) / "checkpoints" / f"step_{step:08d}.pth"
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 4
        path.write_bytes(data)
    train(copied)
    assert f"{path} is damaged" in log(copied) and "resuming after step 4" in log(copied)
    one, other = newest(copied), newest(whole)
    assert one["pretrain"]["dataset"].endswith("/moved")
    for part in ("model", "optimizer"):
        assert different(one[part], other[part]) == []
    assert [line["loss"] for line in lines(copied)] == [line["loss"] for line in lines(whole)]


def test_all_checkpoints_damaged_is_an_error(begun):
    (path,) = Path(begun.OUTPUT_DIR).glob("checkpoints/*.pth")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="every checkpoint in .* is damaged"):
        train(begun)


def test_a_batch_larger_than_the_data_is_refused(tiny):
    with pytest.raises(InputError, match="BATCH_SIZE is 32, but .* has only 24 images"):
        train(tiny("moco", None, "SOLVER.BATCH_SIZE", 32))


def test_an_empty_folder_is_refused(tiny, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing .* has no images"):
        train(tiny("moco", None, "DATA.PATH", tmp_path / "nothing"))


def test_a_file_in_place_of_the_output_folder_is_refused(tiny, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="cannot write into OUTPUT_DIR"):
        train(tiny("moco", tmp_path / "run"))


def test_a_folder_that_another_process_of_the_run_clears_can_be_written(tmp_path):
    """The first process removes what a killed run left, while others look at the folder."""
    checkpoints, looked = Checkpoints(tmp_path / "checkpoints"), threading.Event()

    def clear():
        while not looked.is_set():
            checkpoints.clean()

    clearing = threading.Thread(target=clear)
    clearing.start()
    try:
        for _ in range(300):
            resume.writable(tmp_path)
    finally:
        looked.set()
        clearing.join()
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_said_before_anything_runs(tiny, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    cfg = tiny("moco", None, "BACKBONE.NAME", "resnet18")
    with pytest.raises(EnvironmentLacks, match=r"has 0.10 GB free, .* need 0.4\d GB"):
        train(cfg)
    assert not (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").exists()


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_a_checkpoint_takes_what_was_asked_of_the_disk(tiny, monkeypatch, optimizer):
    asked = []
    monkeypatch.setattr(training, "check_disk", lambda _, size, files: asked.append(size))
    cfg = tiny("moco", None, "SOLVER.MAX_STEPS", 1, "SOLVER.OPTIMIZER", optimizer)
    train(cfg)
    (file,) = Path(cfg.OUTPUT_DIR).glob("checkpoints/*.pth")
    beside = 400_000  # bytes of names, config and counters
    assert asked[0] <= file.stat().st_size < asked[0] + beside


@pytest.mark.parametrize("options", [("AMP", "bf16"), ("CHANNELS_LAST", True)])
def test_options_of_speed_keep_the_weights_in_float32(tiny, options):
    cfg = tiny("moco", None, *options, "SOLVER.MAX_STEPS", 2)
    train(cfg)
    assert lines(cfg)[0]["loss"] > 0
    floats = [v.dtype for v in newest(cfg)["model"].values() if v.is_floating_point()]
    assert set(floats) == {torch.float32}


def first_loss(cfg) -> float:
    """The loss of the first 8 images, before any weight has moved."""
    run = PretrainRun(cfg, Path(cfg.OUTPUT_DIR), torch.device("cpu"))
    run.read_data(saved=None)
    run.build_model(anew=True)
    views = apply_photometric(collate([run.dataset[0, n] for n in range(8)]), "cpu")
    return run.stepper.launch([views], step=0, lr=0.0).outcome().values["loss"]


def test_channels_last_gives_the_same_loss(tiny):
    last = first_loss(tiny("moco", None, "CHANNELS_LAST", True))
    assert last == pytest.approx(first_loss(tiny("moco")), rel=1e-4)


@pytest.mark.slow
def test_bfloat16_gives_the_same_loss_on_average(tiny):
    # Embeddings rounded to 8 bits move a loss of about 2 either way, by which roundings meet: over
    # ten seeds by 0.007 on average with a standard deviation of 0.068. The mean of eight strays
    # from 0 with a deviation of 0.024; five of these are exceeded by chance once in 10^6.
    moved = [
        first_loss(tiny("moco", None, "SEED", seed, "AMP", "bf16"))
        - first_loss(tiny("moco", None, "SEED", seed))
        for seed in range(8)
    ]
    assert any(moved)
    assert abs(sum(moved) / len(moved)) < 0.12


def test_shuffling_without_effect_is_said(tiny, capsys):
    """One group for the whole batch is a leak that MoCo shuffles to avoid; nobody may miss it."""
    for norm, said in (("BN", True), ("split", False)):
        train(tiny("moco", None, "BACKBONE.NORM", norm, "SOLVER.MAX_STEPS", 1))
        assert ("(MOCO.SHUFFLE) has no effect" in capsys.readouterr().err) == said


def test_steps_go_on_while_a_checkpoint_is_written(tiny, monkeypatch, check_same_run):
    options = ("CHECKPOINT.STEPS", 2, "SOLVER.MAX_STEPS", 6)
    cfg, whole = tiny("moco", None, *options), tiny("moco", None, *options)
    train(whole)
    fourth, write = threading.Event(), Checkpoints.save

    def slow(self, number, state):
        assert number != 2 or fourth.wait(60)
        return write(self, number, state)

    monkeypatch.setattr(Checkpoints, "save", slow)
    written = []

    def after_step(step):
        written.append(len(list(Path(cfg.OUTPUT_DIR).glob("checkpoints/*.pth"))))
        if step == 4:
            fourth.set()

    train(cfg, after_step)
    assert written[:4] == [0] * 4
    check_same_run(cfg.OUTPUT_DIR, whole.OUTPUT_DIR)
