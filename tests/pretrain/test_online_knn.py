"""k-NN during pretraining: what it measures, and that the run does not notice."""

import json
import os
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torchvision import transforms as T

from densessl.core import distributed
from densessl.core.errors import InputError, StoppedEarly
from densessl.core.products import product
from densessl.pretrain import config
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.engine.online_knn import UNREADABLE, ClassFolders, OnlineKNN
from densessl.pretrain.engine.train import PretrainRun, train

RESNET = ("BACKBONE.NAME", "resnet18")
COLOURS = {"amber": (210, 140, 40), "blue": (40, 60, 200), "green": (60, 190, 70)}


def paint(file, colour, seed):
    """A noisy picture of one colour."""
    noise = np.random.default_rng(seed).normal(0, 60, (40, 48, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + colour).clip(0, 255).astype(np.uint8)).save(file)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """train/ with 12 and val/ with 7 pictures of each of three colours."""
    folder = tmp_path_factory.mktemp("labelled")
    for split, count in (("train", 12), ("val", 7)):
        for number, (name, colour) in enumerate(COLOURS.items()):
            for n in range(count):
                paint(folder / split / name / f"{n:02d}.png", colour, [number, n, count])
    return folder


def options(folder, *more):
    where = ["KNN.TRAIN", str(folder / "train"), "KNN.VAL", str(folder / "val")]
    return [*where, "KNN.PERIOD", "1.0", "KNN.K", "5", *more]


def lines(folder):
    text = (Path(folder) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def images_of(folder, size=32):
    """The images below a folder in the order of their names, as a network takes them."""
    recipe = T.Compose(
        [
            T.Resize(round(size * 256 / 224), T.InterpolationMode.BICUBIC),
            T.CenterCrop(size),
            T.ToTensor(),
            T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return torch.stack([recipe(Image.open(file)) for file in sorted(folder.rglob("*.png"))])


def plain_accuracy(state, folder, k, name="resnet18"):
    """The definition, query by query, with a backbone that has these tensors."""
    backbone = build_backbone(name, "BN").eval()
    backbone.load_state_dict(state)
    rows, labels = {}, {}
    for split in ("train", "val"):
        files = sorted((folder / split).rglob("*.png"))
        with torch.no_grad():
            levels = backbone(images_of(folder / split))
        found = levels["cls"] if "cls" in levels else levels["layer4"].mean((2, 3))
        rows[split] = torch.nn.functional.normalize(found, dim=1)
        labels[split] = [sorted(COLOURS).index(file.parent.name) for file in files]
    # Features after a few steps are nearly alike: float32 decides between neighbours.
    similarity = product(rows["val"], rows["train"]).double().numpy()
    hits = []
    for row, label in zip(similarity, labels["val"], strict=True):
        nearest = np.argsort(-row, kind="stable")[:k]
        votes = np.zeros(3)
        np.add.at(votes, np.array(labels["train"])[nearest], np.exp(row[nearest] / 0.07))
        hits.append(votes.argmax() == label)
    return 100 * np.mean(hits)


@pytest.fixture(scope="module")
def measured(tiny, labelled):
    """A run of 9 steps, 3 an epoch, that measures after each epoch."""
    cfg = tiny("moco", None, *options(labelled, "LOG.PERIOD", 1), *RESNET)
    train(cfg)
    return cfg


def test_a_run_logs_the_accuracy_of_its_backbone_once_a_period(measured, labelled):
    found = {x["iteration"]: x["knn/top1"] for x in lines(measured.OUTPUT_DIR) if "knn/top1" in x}
    assert list(found) == [0, 3, 6, 9]
    final = torch.load(Path(measured.OUTPUT_DIR) / "backbone_final.pth", weights_only=True)
    assert found[9] == pytest.approx(plain_accuracy(final["backbone"], labelled, 5))
    assert found[9] > 50  # of three colours
    assert "online k-NN" in (Path(measured.OUTPUT_DIR) / "log.txt").read_text()


def test_before_the_first_step_are_the_start_and_both_random_controls(measured, labelled):
    run = PretrainRun(measured, Path(measured.OUTPUT_DIR), torch.device("cpu"))
    run.read_data(saved=None)
    run.build_model(anew=True)
    start = run.method.backbone_state()
    first, *rest = lines(measured.OUTPUT_DIR)
    assert first["knn/top1"] == first["knn/top1_random"]
    assert first["knn/top1"] == pytest.approx(plain_accuracy(start, labelled, 5))
    backbone = build_backbone("resnet18", "BN").train()
    backbone.load_state_dict(start)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a cumulative average, of one batch here
            module.reset_running_stats()
    with torch.no_grad():
        backbone(images_of(labelled / "train"))
    expected = plain_accuracy(backbone.state_dict(), labelled, 5)
    assert first["knn/top1_random_bn"] == pytest.approx(expected)
    assert not any("knn/top1_random" in line for line in rest)


def test_given_weights_are_no_random_control(measured, tiny, labelled):
    weights = str(Path(measured.OUTPUT_DIR) / "backbone_final.pth")
    more = options(labelled, "SOLVER.MAX_STEPS", 1, "BACKBONE.WEIGHTS", weights)
    cfg = tiny("moco", None, *more, *RESNET)
    train(cfg)
    found = lines(cfg.OUTPUT_DIR)[0]
    assert found["knn/top1"] == lines(measured.OUTPUT_DIR)[-1]["knn/top1"]
    assert not any("random" in key for key in found)


def test_the_run_does_not_notice(measured, tiny, labelled, different):
    cfg = tiny("moco", None, "LOG.PERIOD", 1, *RESNET)
    train(cfg)
    states = [
        torch.load(Path(each.OUTPUT_DIR) / "backbone_final.pth", weights_only=True)["backbone"]
        for each in (cfg, measured)
    ]
    assert different(*states) == []
    losses = [
        [x["loss"] for x in lines(each.OUTPUT_DIR) if x["iteration"]] for each in (cfg, measured)
    ]
    assert losses[0] == losses[1]


def test_a_stopped_run_logs_the_same(measured, tiny, labelled, check_same_run):
    cfg = tiny("moco", None, *options(labelled, "LOG.PERIOD", 1, "DATA.WORKERS", 2), *RESNET)

    def stop(step):
        if step in (3, 7):
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(StoppedEarly):
            train(cfg, stop)
    train(cfg)
    check_same_run(cfg.OUTPUT_DIR, measured.OUTPUT_DIR)


def test_dinos_teacher_is_measured_and_a_vits_class_token(tiny, labelled):
    pytest.importorskip("timm")
    small = ["DINO.PROTOTYPES", 8, "DINO.HIDDEN", 8, "DINO.BOTTLENECK", 4, "SOLVER.MAX_STEPS", 2]
    cfg = tiny("dino", None, *options(labelled), "BACKBONE.NAME", "vit_tiny", *small)
    train(cfg)
    final = torch.load(Path(cfg.OUTPUT_DIR) / "backbone_final.pth", weights_only=True)
    expected = plain_accuracy(final["backbone"], labelled, 5, name="vit_tiny")
    assert lines(cfg.OUTPUT_DIR)[-1]["knn/top1"] == pytest.approx(expected)


def online(folder, *more):
    words = ["AMP", "off", "BACKBONE.NAME", "resnet18", "VIEWS.SIZE", "32", "DATA.WORKERS", "0"]
    cfg = config.load(overrides=[*words, *map(str, options(folder, *more))])
    return OnlineKNN(cfg, 10, torch.device("cpu"))


def start():
    torch.manual_seed(0)
    return build_backbone("resnet18").state_dict()


def measure(folder, *more):
    torch.set_num_threads(1)
    return {"top1": torch.tensor(online(Path(folder), *more).measure(start())["knn/top1"])}


def _process(rank, folder, data, more):
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    limit = timedelta(seconds=1800)
    torch.distributed.init_process_group("gloo", None, limit, 2, rank, store)
    torch.save(measure(data, *more), f"{folder}/{rank}.pth")
    distributed.barrier()
    distributed.teardown()


def test_two_processes_measure_what_one_does(labelled, tmp_path):
    more = ("KNN.MAX_VAL", 15, "KNN.MAX_TRAIN", 33)  # neither is even
    mp.spawn(_process, (str(tmp_path), str(labelled), more), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pth", weights_only=True)["top1"] for rank in (0, 1)]
    assert found == [measure(labelled, *more)["top1"]] * 2


def test_unreadable_images_are_left_out(labelled, tmp_path):
    for split in ("train", "val"):
        for file in (labelled / split).rglob("*.png"):
            (tmp_path / split / file.parent.name).mkdir(parents=True, exist_ok=True)
            (tmp_path / split / file.parent.name / file.name).write_bytes(file.read_bytes())
        for name in COLOURS:
            (tmp_path / split / name / "99.png").write_bytes(b"nothing")
    assert measure(tmp_path)["top1"] == measure(labelled)["top1"]
    for file in (tmp_path / "train").rglob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="KNN.TRAIN: none of the images in .* can be read"):
        measure(tmp_path)


def test_it_is_due_once_a_period_and_at_the_end(labelled):
    half = online(labelled, "KNN.PERIOD", "0.45")  # 4.5 steps
    assert [step for step in range(1, 12) if half.due(step, 11)] == [4, 8, 11]


def test_a_limit_takes_images_evenly_over_classes_and_names(labelled):
    few = ClassFolders(labelled / "train", 10, 32, "KNN.TRAIN")
    assert few.labels == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [file.name for file in few.files[:3]] == ["00.png", "04.png", "08.png"]
    assert len(ClassFolders(labelled / "train", 0, 32, "KNN.TRAIN")) == 36


def test_hidden_files_are_no_images_and_links_are_followed_once(labelled, tmp_path):
    root = tmp_path / "train"
    shutil.copytree(labelled / "train", root)
    shutil.move(root / "amber", tmp_path / "amber")
    (root / "amber").mkdir()
    (root / "amber" / "elsewhere").symlink_to(tmp_path / "amber")
    (root / "blue" / "._00.png").write_bytes(b"remarks of another system")
    paint(root / "blue" / ".trash" / "00.png", COLOURS["green"], 0)
    (root / "blue" / "again").symlink_to(root / "blue")
    found = ClassFolders(root, 0, 32, "KNN.TRAIN")
    assert [file.name for file in found.files] == [
        file.name for file in ClassFolders(labelled / "train", 0, 32, "KNN.TRAIN").files
    ]
    assert UNREADABLE not in [found[number][1] for number in range(len(found))]


@pytest.mark.parametrize(
    "more, says",
    [
        (["KNN.TRAIN", ""], "KNN.TRAIN: . must hold a folder of images for each class"),
        (["KNN.VAL", "nowhere"], "KNN.VAL: nowhere is no folder"),
        (["KNN.VAL", "PICTURES"], "KNN.VAL: .* must hold a folder of images for each class"),
        (["KNN.VAL", "FEWER"], "3 class folders and KNN.VAL 2; they must be the same.*green"),
    ],
)
def test_folders_that_do_not_fit_are_refused(more, says, labelled, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("amber", "blue"):
        paint(tmp_path / "fewer" / name / "0.png", COLOURS[name], [0])
    places = {"PICTURES": str(pictures), "FEWER": str(tmp_path / "fewer")}
    with pytest.raises(InputError, match=says):
        online(labelled, *(places.get(word, word) for word in more))


@pytest.mark.parametrize(
    "name, value", [("PERIOD", "-1"), ("K", "0"), ("TEMPERATURE", "0"), ("MAX_VAL", "-1")]
)
def test_values_out_of_range_are_refused(name, value, tiny):
    with pytest.raises(InputError, match=f"KNN.{name} is {value}"):
        config.validate(tiny("moco", None, f"KNN.{name}", value))
