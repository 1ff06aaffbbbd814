"""``densessl advise``: what it says of few images and of many, and that pretraining takes it."""

import multiprocessing
import os
import shlex
import signal

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import get_worker_info

import densessl
from densessl.core.order import epoch_order
from densessl.pretrain import config
from densessl.pretrain.advise_model import ImageStats, Machine
from densessl.pretrain.advise_rules import advise, own_keys, run_steps
from densessl.pretrain.contradictions import contradictions, horizon, too_large_views
from densessl.pretrain.engine.order import STREAM
from densessl.pretrain.views import collate

NUMBERS = (4, 30, 1000, 10_000, 1_281_167)
MACHINES = (Machine(0, cores=2), Machine(1), Machine(6, 80e9))
PRESETS = ("", "moco_v2", "pixpro", "byol", "swav_r50_in1k_200ep", "dino", "scfs_vit_small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 images of 80 px; every fourth is grey."""
    folder = tmp_path_factory.mktemp("few images")
    for n in range(40):
        shape = (80, 96) if n % 4 == 0 else (80, 96, 3)
        pixels = np.random.default_rng(n).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02d}.png")
    return folder


def values(advice):
    return {choice.option: choice.value for choice in advice.choices}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("number", NUMBERS)
def test_advice_suits_the_data_and_is_a_valid_config(number, machine):
    for preset in PRESETS:
        for side in (32, 375):
            advice = advise(ImageStats(number, side), machine, preset)
            cfg = advice.cfg
            cfg.DATA.PATH = "somewhere"
            config.validate(cfg, advice.processes)
            assert contradictions(cfg, number) == [] == too_large_views(cfg, side), preset
            assert 1 <= advice.processes <= max(machine.gpus, 1)
            assert number >= 2 * cfg.SOLVER.BATCH_SIZE
            assert cfg.SOLVER.REFERENCE_BATCH == 256
            if "MOCO.QUEUE" in values(advice):
                assert max(number / 4, cfg.SOLVER.BATCH_SIZE) >= cfg.MOCO.QUEUE
            for choice in advice.choices:
                assert choice.reason and choice.source


def test_at_imagenets_size_the_advice_is_what_the_authors_ran():
    advice = advise(ImageStats(1_281_167, 375), Machine(8, 32e9), "moco_v2")
    published = config.load("moco_v2")
    free = {"DATA.WORKERS", "CHECKPOINT.PERIOD"}
    assert {
        name: value
        for name, value in config.flat(advice.cfg).items()
        if config.flat(published)[name] != value and name not in free
    } == {}
    assert advice.processes == 8


def test_fewer_images_take_smaller_batches_queues_and_momenta_and_more_epochs():
    advised = [advise(ImageStats(n, 375), Machine(1)).cfg for n in (1000, 5000, 100_000, 1_281_167)]
    for smaller, larger in zip(advised, advised[1:], strict=False):
        assert smaller.SOLVER.BATCH_SIZE <= larger.SOLVER.BATCH_SIZE
        assert smaller.MOCO.QUEUE < larger.MOCO.QUEUE
        assert smaller.MOCO.MOMENTUM <= larger.MOCO.MOMENTUM
        assert smaller.SOLVER.EPOCHS >= larger.SOLVER.EPOCHS
    assert advise(ImageStats(999, 375), Machine(1)).cfg.METHOD.NAME == "setsim_simsiam"  # no queue
    assert {cfg.METHOD.NAME for cfg in advised} == {"densecl"}


def test_a_batch_that_does_not_fit_at_once_is_offered_in_parts():
    for number, preset, offered in (
        (1_000_000, "moco_v2", "256 fit in parts: SOLVER.ACCUMULATE 4"),
        (1024, "moco_v2", "128 fit in parts: SOLVER.ACCUMULATE 2"),  # eight batches an epoch
        (1_000_000, "simclr", ""),
    ):
        found = advise(ImageStats(number, 375), Machine(1, 16e9), preset)
        (reason,) = (each.reason for each in found.choices if each.option == "SOLVER.BATCH_SIZE")
        assert reason.endswith(offered) and ("ACCUMULATE" in reason) == bool(offered)


def test_a_limit_of_steps_shortens_all_that_hangs_on_the_length():
    limited = advise(ImageStats(10_000, 96), Machine(1), "moco_v2", most_steps=500)
    assert 450 <= run_steps(limited.cfg, 10_000) <= 500
    assert horizon(limited.cfg.MOCO.MOMENTUM) <= 500 / 20
    assert limited.cfg.SOLVER.PER == "step"
    short = advise(ImageStats(10_000, 96), Machine(1), "moco_v2", most_steps=12)
    assert run_steps(short.cfg, 10_000) == 12


def test_what_a_config_says_of_its_own_length_gives_way():
    cfg = advise(ImageStats(5000, 96), Machine(1), "moco_v2_scenes").cfg  # 30 steps
    assert run_steps(cfg, 5000) == cfg.SOLVER.EPOCHS * (5000 // cfg.SOLVER.BATCH_SIZE)
    cfg = advise(ImageStats(5000, 96), Machine(1), "moco_v1").cfg  # drops after 120 and 160 epochs
    assert cfg.SOLVER.EPOCHS > 200 and cfg.SOLVER.SCHEDULE == "cosine"
    assert advise(ImageStats(1_281_167, 375), Machine(8), "moco_v1").cfg.SOLVER.SCHEDULE == "step"


@pytest.mark.parametrize(("queue", "images"), [(16, 64), (64, 64), (96, 64), (128, 64), (7, 100)])
def test_how_many_queries_meet_their_own_older_key(queue, images):
    """Counted over the epochs' real orders, the newest ``queue`` images before each one."""
    epochs = 300
    orders = [epoch_order(STREAM, 0, epoch, images) for epoch in range(epochs)]
    seen = {}
    met = 0
    for place, image in enumerate(np.concatenate(orders).tolist()):
        met += place - seen.get(image, -10 * images) <= queue
        seen[image] = place
    share, total = own_keys(queue, images), (epochs - 1) * images
    spread = 5 * np.sqrt(max(share * (1 - share), 1e-3) / total)
    assert met / total == pytest.approx(share, abs=spread + 1 / images)


def told(capsys, *argv):
    assert densessl.main(["advise", *map(str, argv)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [(), ("--gpus", "8"), ("--config", "moco_v2"), ("--config", "dino", "--gpus", "0")]
)
def test_the_printed_command_is_one_that_pretraining_takes(folder, argv, capsys):
    out = told(capsys, folder, "--no-trial", *argv)
    assert told(capsys, folder, "--no-trial", *argv) == out  # the same again
    words = shlex.split(out.strip().splitlines()[-1])
    words = words[words.index("densessl") + 1 :]
    assert words[0] == "pretrain" and str(folder) in words
    assert densessl.main([*words, "--print-config"]) == 0
    assert f"PATH: {folder}" in capsys.readouterr().out


def test_the_written_config_trains_from_any_folder(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("densessl.pretrain.advise_trial.MOST_STEPS", 2)
    monkeypatch.chdir(folder.parent)
    file = tmp_path / "mine.yaml"
    words = [folder.name, "--gpus", 0, "--config", "moco_v2", "--time", 0.001, "-o", file]
    out = told(capsys, *words)
    assert "images/s" in out and "2 steps of 16 images" in out
    monkeypatch.chdir(tmp_path)
    cfg = config.load(file)
    assert str(folder) == cfg.DATA.PATH
    assert run_steps(cfg, 40) < 400  # of 3.6 s; without a limit 2000
    words = shlex.split(out.strip().splitlines()[-1])
    asked = config.load("moco_v2", words[words.index("moco_v2") + 1 :])
    asked.DATA.PATH = cfg.DATA.PATH
    assert cfg == asked  # the file is the command
    run = ["--config", str(file), "OUTPUT_DIR", "run", "SOLVER.MAX_STEPS", "2"]
    assert densessl.main(["pretrain", *run, "MOCO.MOMENTUM", "0.5"]) == 0
    assert (tmp_path / "run" / "backbone_final.pth").is_file()
    assert " WARNING " not in (tmp_path / "run" / "log.txt").read_text()
    assert densessl.main(["advise", str(folder), "--no-trial", "-o", str(file)]) == 2  # it is there
    assert str(file) in capsys.readouterr().err


def test_pretraining_warns_of_a_contradiction_once(tiny, tmp_path):
    from densessl.pretrain.engine.train import train

    cfg = tiny("moco", tmp_path / "run", "MOCO.MOMENTUM", 0.999, "SOLVER.MAX_STEPS", 2)
    cfg.VIEWS.SIZE = 96  # of pictures of 60
    train(cfg)
    longer = cfg.clone()
    longer.SOLVER.MAX_STEPS = 3
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    warned = [line for line in lines if " WARNING " in line]
    for option in ("MOCO.MOMENTUM is 0.999", "VIEWS.SIZE is 96", "SOLVER.REFERENCE_BATCH is 8"):
        assert sum(option in line for line in warned) == 1
    train(longer, change=["SOLVER.MAX_STEPS"])  # its momentum is warned of again, as it is changed
    text = (tmp_path / "run" / "log.txt").read_text()
    assert text.count("MOCO.MOMENTUM is 0.999") == 2 and text.count("VIEWS.SIZE is 96") == 1


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["missing"], ["PATH", "missing"]),
        (["empty"], ["empty"]),
        (["text"], ["text/a.png"]),
        (["few"], ["few", "2 images"]),
        (["images", "--gpus", "-1"], ["--gpus", "-1"]),
        (["images", "--time", "0"], ["--time", "0"]),
        (["images", "--time", "nan"], ["--time", "nan"]),
        (["images", "--time", "1", "--no-trial"], ["--no-trial"]),
        (["images", "--config", "mocov2"], ["mocov2", "moco_v2"]),
        (["images", "--source", "shard"], ["--source", "shards"]),
        (["images", "-o", "advice.json"], ["advice.json", ".yaml"]),
        (["images", "-o", "text/a.png/b.yaml"], ["text/a.png"]),
    ],
)
def test_wrong_input_is_one_message_and_no_file(argv, named, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "text", "few"):
        (tmp_path / name).mkdir()
    for n in range(5):
        (tmp_path / "text" / f"{'abcde'[n]}.png").write_text("no image")
    for n in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / "few" / f"{n}.png")
    (tmp_path / "images").symlink_to(folder)
    before = sorted(tmp_path.rglob("*"))
    assert densessl.main(["advise", *argv]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in named), line
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_ends_a_trial(folder, capsys, monkeypatch):
    """In the middle of its steps, with its loader processes."""
    monkeypatch.setattr("densessl.pretrain.advise_trial.MOST_STEPS", 10**6)
    monkeypatch.setattr("densessl.pretrain.advise_trial.collate", interrupted)
    assert densessl.main(["advise", str(folder), "--gpus", "0"]) == 130
    assert capsys.readouterr().out == "" and not multiprocessing.active_children()


def interrupted(samples):
    """The batches of a run during which somebody presses Ctrl-C."""
    if get_worker_info() is None:
        return collate(samples)
    os.kill(os.getppid(), signal.SIGINT)
    return collate(samples)
