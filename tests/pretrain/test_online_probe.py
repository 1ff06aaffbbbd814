"""The dense probe during pretraining: what it measures, and that the run does not notice."""

import json
import os
import signal
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms as T

from densessl.core import distributed
from densessl.core.errors import InputError, StoppedEarly
from densessl.pretrain import config
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.engine.online_probe import OnlineProbe
from densessl.pretrain.engine.train import PretrainRun, train
from densessl.probes import cell_counts, linear_probe

COLOURS = ((40, 60, 200), (210, 140, 40), (60, 190, 70))
RESNET = ("BACKBONE.NAME", "resnet18")
SIZE = 64  # 4 × 4 positions at stride 16


def paint(folder, name, seed):
    """A noisy picture of a rectangle on a ground, 72 × 64 pixels, and its label image."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((64, 72), np.uint8)
    y, x = rng.integers(0, 32, 2)
    labels[y : y + 32, x : x + 36] = 1 + seed % 2
    labels[:3] = 255
    image = np.array((*COLOURS, (0, 0, 0)))[np.minimum(labels, 3)]
    noisy = (image + rng.normal(0, 30, image.shape)).clip(0, 255).astype(np.uint8)
    for kind, values in (("images", noisy), ("masks", labels)):
        file = folder / kind / "some" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """train/ with 10 and val/ with 5 pictures."""
    folder = tmp_path_factory.mktemp("labelled")
    for split, count in (("train", 10), ("val", 5)):
        for n in range(count):
            paint(folder / split, f"{n:02d}", n + 100 * count)
    return folder


def options(folder, *more):
    words = ["PROBE.PERIOD", "1.0"]
    for which, split in (("", "train"), ("VAL_", "val")):
        words += [f"PROBE.{which}IMAGES", str(folder / split / "images")]
        words += [f"PROBE.{which}MASKS", str(folder / split / "masks")]
    return [*words, *more]


def lines(cfg):
    text = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def plain_miou(state, folder):
    """The definition with a backbone that has these tensors: float, and pixel by pixel."""
    backbone = build_backbone("resnet18", "BN").eval()
    backbone.load_state_dict(state)
    recipe = T.Compose(
        [
            T.CenterCrop(SIZE),
            T.ToTensor(),
            T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    maps, labels = {}, {}
    for split in ("train", "val"):
        images = sorted((folder / split / "images").rglob("*.png"))
        with torch.no_grad():
            levels = backbone(torch.stack([recipe(Image.open(file)) for file in images]))
        grid = levels["layer3"].shape[2:]
        coarse = F.interpolate(levels["layer4"], grid, mode="bilinear")
        maps[split] = torch.cat((levels["layer3"], coarse), 1)
        masks = sorted((folder / split / "masks").rglob("*.png"))
        crops = [np.array(Image.open(file))[:, 4:68] for file in masks]  # the centre of 72
        labels[split] = torch.from_numpy(np.stack(crops))
    rows = maps["train"].permute(0, 2, 3, 1).flatten(0, 2)
    counts = cell_counts(labels["train"], 3, tuple(grid)).flatten(0, 2)
    probe = linear_probe(rows, counts, 3, batch_norm=True, iterations=100)
    logits = F.interpolate(probe.logits(maps["val"]), (SIZE, SIZE), mode="bilinear")
    found, truth = logits.argmax(1).numpy(), labels["val"].numpy()
    iou = []
    for name in range(3):
        one, other = (found == name) & (truth != 255), truth == name
        iou.append((one & other).sum() / (one | other).sum())
    return 100 * np.mean(iou)


@pytest.fixture(scope="module")
def measured(tiny, labelled):
    """A run of 4 steps, 3 an epoch, that measures after each epoch and at the end."""
    more = ("LOG.PERIOD", 1, "VIEWS.SIZE", SIZE, "SOLVER.MAX_STEPS", 4)
    cfg = tiny("moco", None, *options(labelled, *more), *RESNET)
    train(cfg)
    return cfg


def test_a_run_logs_the_miou_of_its_backbone_from_step_0_on(measured, labelled):
    found = {x["iteration"]: x["probe/miou"] for x in lines(measured) if "probe/miou" in x}
    assert list(found) == [0, 3, 4]
    final = torch.load(Path(measured.OUTPUT_DIR) / "backbone_final.pth", weights_only=True)
    assert found[4] == pytest.approx(plain_miou(final["backbone"], labelled), abs=0.5)
    assert found[4] > 40  # of three colours; the ground alone has 20


def test_both_random_controls_are_measured_before_the_first_step(measured, labelled):
    run = PretrainRun(measured, Path(measured.OUTPUT_DIR), torch.device("cpu"))
    run.read_data(saved=None)
    run.build_model(anew=True)
    first = lines(measured)[0]
    expected = plain_miou(run.method.backbone_state(), labelled)
    assert first["probe/miou"] == first["probe/miou_random"] == pytest.approx(expected, abs=0.5)
    assert 0 < first["probe/miou_random_bn"] < 100
    assert first["probe/miou_random_bn"] != first["probe/miou"]


def test_the_run_does_not_notice_and_resumes_bit_for_bit(
    measured, tiny, labelled, different, check_same_run
):
    more = ("LOG.PERIOD", 1, "VIEWS.SIZE", SIZE, "SOLVER.MAX_STEPS", 4)
    cfg = tiny("moco", None, *more, *RESNET)

    def stop(step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedEarly):  # half of it does not measure
        train(cfg, stop)
    config.merge(cfg, {"PROBE": dict(measured.PROBE)}, "a test")
    train(cfg)
    one, other = (
        torch.load(Path(each.OUTPUT_DIR) / "backbone_final.pth", weights_only=True)["backbone"]
        for each in (cfg, measured)
    )
    assert different(one, other) == []
    ends = [[x.get("probe/miou") for x in lines(each)][-2:] for each in (cfg, measured)]
    assert ends[0] == ends[1]
    cfg = measured.clone()
    cfg.OUTPUT_DIR += "_parts"
    with pytest.raises(StoppedEarly):
        train(cfg, stop)
    train(cfg)
    check_same_run(cfg.OUTPUT_DIR, measured.OUTPUT_DIR)


def online(folder, *more):
    words = ["AMP", "off", "BACKBONE.NAME", "resnet18", "VIEWS.SIZE", str(SIZE)]
    words += ["DATA.WORKERS", "0"]
    cfg = config.load(overrides=[*words, *map(str, options(folder, *more))])
    return OnlineProbe(cfg, 10, torch.device("cpu"))


def test_without_images_for_validation_a_quarter_is_held_out(labelled):
    probe = online(labelled, "PROBE.VAL_IMAGES", "", "PROBE.VAL_MASKS", "")
    names = [
        [Path(part.name(n)).stem for n in range(len(part))] for part in (probe.train, probe.val)
    ]
    assert names == [["00", "01", "02", "04", "05", "06", "08", "09"], ["03", "07"]]
    few = online(labelled, "PROBE.MAX_TRAIN", 4, "PROBE.MAX_VAL", 2)
    assert [Path(few.train.name(n)).stem for n in range(4)] == ["00", "02", "05", "07"]
    assert len(few.val) == 2


def test_an_image_that_went_is_ignored(labelled, tmp_path):
    for n in range(6):
        paint(tmp_path / "train", f"{n}", n)
        paint(tmp_path / "val", f"{n}", n + 50)
    probe = online(tmp_path)
    (tmp_path / "train" / "images" / "some" / "3.png").write_bytes(b"nothing")
    image, labels, number = probe.train[3]
    assert number == -1 and (labels == 255).all() and not image.any()
    torch.manual_seed(0)
    state = build_backbone("resnet18").state_dict()
    assert 0 < probe.measure(state)["probe/miou"] < 100


@pytest.mark.parametrize(
    "more, says",
    [
        (["PROBE.MASKS", ""], "PROBE.PERIOD is 1, but PROBE.MASKS is empty"),
        (["PROBE.VAL_MASKS", ""], "PROBE.VAL_IMAGES is given, but PROBE.VAL_MASKS is empty"),
        (["PROBE.IMAGES", "nowhere"], "PROBE.IMAGES, PROBE.MASKS: .*nowhere"),
        (["PROBE.LEVELS", "('layer5',)"], "PROBE.LEVELS has 'layer5'; resnet18 has layer1"),
    ],
)
def test_options_that_do_not_fit_are_refused(more, says, labelled):
    with pytest.raises(InputError, match=says):
        online(labelled, *more)


def _measure(folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    state = build_backbone("resnet18").state_dict()
    probe = online(Path(folder))
    values = probe.measure(state)
    return values | probe.controls(state, values)


def _process(rank, folder, data):
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    limit = timedelta(seconds=1800)
    torch.distributed.init_process_group("gloo", None, limit, 2, rank, store)
    torch.save(_measure(data), f"{folder}/{rank}.pth")
    distributed.barrier()
    distributed.teardown()


@pytest.mark.slow
def test_two_processes_measure_what_one_does(labelled, tmp_path):
    mp.spawn(_process, (str(tmp_path), str(labelled)), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1)]
    assert found[0] == found[1] == pytest.approx(_measure(labelled), abs=0.5)
