"""The dense probes as protocols: features of positions, the three measures, stops, bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.optimize import linear_sum_assignment, minimize
from torchvision.models import resnet

import densessl
from densessl import probes
from densessl.core import waiting
from densessl.core.errors import InputError, StoppedEarly
from densessl.d2_transfer import dense_probes, results, trials
from densessl.d2_transfer.classification.networks import build_backbone
from densessl.d2_transfer.dense_probes import features, loading, predictions
from densessl.d2_transfer.dense_probes.data import read
from densessl.d2_transfer.protocols import PROBES

LEVELS = ["FEATURES.LEVELS", "('res3', 'res4')"]
SMALL = ["INPUT.SIZE", "(64, 96)", "MODEL.BACKBONE", "resnet18", *LEVELS]
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


def begin(folder, data, protocol, *overrides, named="random", gpus=1):
    """A run and its config, as ``densessl transfer --mini`` makes them."""
    words = [*SMALL, *overrides]
    cfg = dense_probes.resolve(protocol, "voc", gpus, mini=True, overrides=words, cuda=False)
    run = trials.Run(
        folder=folder,
        protocol=protocol,
        variant="voc",
        mini=True,
        weights=dense_probes.prepare(named, folder, cfg),
        data=dense_probes.check_data(cfg, data, stand_in=True),
        gpus=gpus,
    )
    return run, cfg


def finish(run, cfg, count=1, seed=1):
    records, failed = trials.run_trials(run, cfg, count, seed, dense_probes.run_trial)
    assert not failed
    return records


@pytest.fixture(scope="module")
def weights(tmp_path_factory, our_checkpoint):
    return our_checkpoint(tmp_path_factory.mktemp("weights") / "backbone_final.pth", depth=18)


@pytest.fixture(scope="module")
def plain(scenes, random_resnet):
    """Of both splits, by a plain pass: features ``[N, h·w, C]``, label images ``[N, H, W]``, pixels
    of each class in each cell ``[N, h·w, 21]``."""
    network = resnet.resnet18()
    network.fc = torch.nn.Identity()
    network.load_state_dict(random_resnet(18))
    network.eval()
    found = []
    for split in ("train_aug", "val"):
        names = (scenes / "voc_aug" / f"{split}.txt").read_text().split()
        maps, labels = [], []
        for name in names:
            image = Image.open(scenes / "VOC2012" / "JPEGImages" / f"{name}.jpg").convert("RGB")
            pixels = np.array(image.resize((96, 64), Image.Resampling.BILINEAR))
            x = ((torch.tensor(pixels).float() - MEAN) / STD).permute(2, 0, 1)[None]
            with torch.no_grad():
                x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
                res3 = network.layer2(network.layer1(x))
                res4 = network.layer3(res3)
            res4 = F.interpolate(res4, size=res3.shape[2:], mode="bilinear")
            maps.append(torch.cat([res3, res4], 1)[0].flatten(1).T)
            labels.append(np.array(Image.open(scenes / "voc_aug" / "labels" / f"{name}.png")))
        counts = np.zeros((len(names), 8 * 12, 21), np.int64)
        for image, picture in zip(counts, labels, strict=True):
            H, W = picture.shape
            for (y, x), value in np.ndenumerate(picture):
                if value != 255:
                    image[y * 8 // H * 12 + x * 12 // W, value] += 1
        found.append((torch.stack(maps), np.stack(labels), torch.from_numpy(counts)))
    return found


def iou(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean IoU over the classes that are labelled or predicted, and accuracy, per cent."""
    predicted, labels = predicted[labels != 255], labels[labels != 255]
    found = []
    for c in range(21):
        either = ((predicted == c) | (labels == c)).sum()
        if either:
            found.append(((predicted == c) & (labels == c)).sum() / either)
    return 100 * float(np.mean(found)), 100 * float((predicted == labels).mean())


def upsampled(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class of each pixel by values ``[N, h·w, 21]`` of positions."""
    maps = torch.as_tensor(values).transpose(1, 2).unflatten(2, (8, 12))
    maps = F.interpolate(maps, size=labels.shape[1:], mode="bilinear", align_corners=False)
    return maps.argmax(1).numpy()


def test_features_on_disk_are_those_of_a_plain_pass(tmp_path, scenes, weights, plain):
    run, cfg = begin(tmp_path, scenes, "linear_semseg", named=str(weights))
    (record,) = finish(run, cfg)
    (test,) = (f for f in tmp_path.glob("features/*") if not (f / "counts_000000000.npy").exists())
    (train,) = (f.parent for f in tmp_path.glob("features/*/counts_000000000.npy"))
    expected, _, counts = plain[0]
    labelled = counts.sum(2) > 0
    held = {name: np.load(train / f"{name}_000000000.npy") for name in ("features", "counts")}
    rounding = 1e-5 * float(expected.abs().max())  # sums of float32, in another order
    np.testing.assert_allclose(held["features"], expected[labelled], rtol=0, atol=rounding)
    assert (held["counts"] == counts[labelled].numpy()).all()
    numbers = np.load(train / "images_000000000.npy")
    assert (numbers == labelled.nonzero()[:, 0].numpy()).all()
    held = np.load(test / "features_000000000.npy")
    np.testing.assert_allclose(held, plain[1][0].flatten(0, 1), rtol=0, atol=rounding)
    assert record.method == "setsim" and record.protocol == "linear_semseg" and record.mini


@pytest.mark.parametrize("norm", [True, False])
def test_linear_is_the_minimum_of_the_cross_entropy_of_pixels(
    tmp_path, scenes, weights, plain, norm
):
    l2 = 0.3 if norm else 30.0
    options = ["LINEAR.L2", str(l2), "LINEAR.BATCH_NORM", str(norm), "LINEAR.STEPS", "3000"]
    run, cfg = begin(tmp_path, scenes, "linear_semseg", *options, named=str(weights))
    (record,) = finish(run, cfg)
    x, counts = plain[0][0].flatten(0, 1).double(), plain[0][2].flatten(0, 1).double()
    present = (counts.sum(0) > 0).numpy()
    n = counts.sum(1, keepdim=True)
    mean = (n * x).sum(0) / n.sum()
    std = ((n * (x - mean) ** 2).sum(0) / n.sum() + 1e-5).sqrt()
    z = (x - mean) / std
    scale = 1 if norm else std  # without the norm, weights of x itself are penalised: V / std

    def loss(flat):
        layer = torch.tensor(flat.reshape(present.sum(), -1), requires_grad=True)
        logits = z @ layer[:, :-1].T + layer[:, -1]
        value = -(counts[:, present] * logits.log_softmax(1)).sum() / n.sum()
        value = value + l2 / 2 * (layer[:, :-1] / scale).square().sum()
        value.backward()
        return value.item(), layer.grad.flatten().numpy()

    start = np.zeros(present.sum() * (x.shape[1] + 1))
    how = {"maxiter": 3000, "maxfun": 6000, "ftol": 1e-12, "gtol": 1e-7}
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options=how)
    layer = torch.tensor(best.x.reshape(present.sum(), -1))
    maps, labels, _ = plain[1]
    logits = torch.full((*maps.shape[:2], 21), -1e4, dtype=torch.float64)
    logits[..., present] = (maps.double() - mean) / std @ layer[:, :-1].T + layer[:, -1]
    mean_iou, accuracy = iou(upsampled(logits, labels), labels)
    assert record.metrics["sem_seg/pACC"] == pytest.approx(accuracy, abs=0.1)
    assert record.metrics["sem_seg/mIoU"] == pytest.approx(mean_iou, abs=0.1)


@pytest.mark.parametrize("protocol", ["linear_semseg", "knn_semseg"])
def test_predictions_that_are_kept_are_those_that_were_measured(tmp_path, scenes, plain, protocol):
    options = ["LINEAR.STEPS", "20"]
    run, cfg = begin(tmp_path, scenes, protocol, *options, "TEST.PREDICTIONS", "99")
    (record,) = finish(run, cfg)
    folder = run.trial_folder(1) / "predictions"
    told = json.loads((folder / "predictions.json").read_text())
    labels = plain[1][1]
    assert told["images"] == list(range(len(labels))) and len(told["classes"]) == 21
    of_all = {
        part: np.stack([np.array(Image.open(folder / f"{n}_{part}.png")) for n in told["images"]])
        for part in ("truth", "predicted")
    }
    assert (of_all["truth"] == labels).all()
    mean_iou, accuracy = iou(of_all["predicted"], labels)
    assert record.metrics["sem_seg/mIoU"] == pytest.approx(mean_iou, rel=1e-9)
    assert record.metrics["sem_seg/pACC"] == pytest.approx(accuracy, rel=1e-9)
    assert Image.open(folder / "0_image.jpg").size == labels.shape[:0:-1]
    _, without = begin(tmp_path / "without", scenes, protocol, *options)
    fingerprints = [results.config_fingerprint(results.as_dict(each)) for each in (cfg, without)]
    assert fingerprints[0] == fingerprints[1]


def test_kept_images_are_evenly_spaced():
    assert predictions.spaced(101, 4) == [12, 37, 63, 88]
    assert predictions.spaced(3, 4) == [0, 1, 2] and predictions.spaced(5, 0) == []
    assert predictions.smaller((1280, 640)) == (320, 160) and predictions.smaller((96, 64)) == (
        96,
        64,
    )


def test_knn_is_the_weighted_mean_of_the_nearest_labels(tmp_path, scenes, weights, plain):
    options = ["KNN.SHARES", "('1/3', '1/1')", "KNN.K", "7", "KNN.TEMPERATURE", "0.05"]
    run, cfg = begin(tmp_path, scenes, "knn_semseg", *options, named=str(weights))
    (record,) = finish(run, cfg)
    keys, _, counts = plain[0]
    queries, labels, _ = plain[1]
    for share in ("1/3", "1/1"):
        chosen = probes.subset(len(keys), share, 1)
        x, y = keys[chosen].flatten(0, 1).double(), counts[chosen].flatten(0, 1).double()
        x, y = x[y.sum(1) > 0], y[y.sum(1) > 0]
        y /= y.sum(1, keepdim=True)
        cosine = F.normalize(queries.double(), dim=2) @ F.normalize(x, dim=1).T
        near, index = cosine.topk(7, dim=2)
        found = ((near / 0.05).softmax(2)[..., None] * y[index]).sum(2)
        mean_iou, accuracy = iou(upsampled(found, labels), labels)
        name = f"sem_seg/mIoU_{share.replace('/', '_')}"
        assert record.metrics[name] == pytest.approx(mean_iou, abs=0.1)
    assert record.metrics["sem_seg/mIoU"] == record.metrics["sem_seg/mIoU_1_1"]
    assert record.metrics["sem_seg/pACC"] == pytest.approx(accuracy, abs=0.1)


def test_overcluster_counts_the_pixels_of_matched_clusters(tmp_path, scenes, weights, plain):
    options = ["CLUSTERS.COUNTS", "(30,)", "CLUSTERS.STARTS", "2"]
    run, cfg = begin(tmp_path, scenes, "overcluster", *options, named=str(weights))
    (record,) = finish(run, cfg, seed=5)
    (file,) = tmp_path.glob("features/*/features_000000000.npy")
    held = torch.from_numpy(np.load(file))
    counts = plain[1][2].flatten(0, 1)
    counts = counts[counts.sum(1) > 0].numpy()
    shown = int((counts.sum(0) > 0).sum())  # of VOC's classes
    assert shown < 21
    for clusters in (shown, 30):
        nothing = torch.full((len(held),), -1)
        found = probes.overcluster(held, nothing, clusters, classes=2, seed=5, restarts=2)
        shared = np.zeros((clusters, 21))
        np.add.at(shared, found.clustering.assignment.numpy(), counts)
        either = shared.sum(1, keepdims=True) + shared.sum(0) - shared
        rows, columns = linear_sum_assignment(-shared / np.maximum(either, 1))
        matched = shared.argmax(1) if clusters > shown else columns[rows.argsort()]
        confusion = np.zeros((21, 21))
        np.add.at(confusion, matched, shared)  # rows: predicted
        right = confusion.diagonal()
        either = confusion.sum(0) + confusion.sum(1) - right
        expected = 100 * (right[either > 0] / either[either > 0]).mean()
        assert record.metrics[f"sem_seg/mIoU_k{clusters}"] == pytest.approx(expected, rel=1e-6)
    assert record.metrics["sem_seg/mIoU"] == record.metrics[f"sem_seg/mIoU_k{shown}"]


def test_stopped_extraction_resumes_with_the_missing_pieces(tmp_path, scenes, monkeypatch):
    monkeypatch.setattr(features, "FLOATS", 1)  # an image a piece
    compute = features.DenseFeatures._compute_piece

    def stop(self, first):
        compute(self, first)
        if first == 1:
            waiting.ask()

    run, cfg = begin(tmp_path, scenes, "knn_semseg")
    with monkeypatch.context() as patched:
        patched.setattr(features.DenseFeatures, "_compute_piece", stop)
        with pytest.raises(StoppedEarly, match="2 of 6 pieces"):
            finish(run, cfg)
    written = {piece: piece.stat().st_mtime_ns for piece in tmp_path.rglob("*.npy")}
    assert len(written) == 6
    (record,) = finish(run, cfg)
    assert all(piece.stat().st_mtime_ns == time for piece, time in written.items())
    monkeypatch.undo()
    whole, cfg = begin(tmp_path / "whole", scenes, "knn_semseg")
    metrics = finish(whole, cfg)[0].metrics
    assert record.metrics == pytest.approx(metrics, abs=0.2, nan_ok=True)
    before = (run.trial_folder(1) / "result.json").stat().st_mtime_ns
    finish(run, begin(tmp_path, scenes, "knn_semseg")[1])
    assert (run.trial_folder(1) / "result.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds another run .KNN.K 30 there, 9 here"):
        finish(*begin(tmp_path, scenes, "knn_semseg", "KNN.K", "9"))


@pytest.mark.parametrize("protocol, balanced", [("linear_semseg", False), ("knn_semseg", True)])
def test_few_positions_are_drawn_by_the_seed(tmp_path, scenes, protocol, balanced):
    run, cfg = begin(tmp_path, scenes, protocol, "FEATURES.POSITIONS", "31")
    first, second = finish(run, cfg, 2)
    assert (first.seed, second.seed) == (1, 2)
    for facts in tmp_path.glob("features/*/counts_*.npy"):
        counts, images = np.load(facts), np.load(facts.with_name("images_000000000.npy"))
        assert (counts.sum(1) > 0).all()
        assert (np.bincount(images) == 31 // 6).all()
    backbone = build_backbone("resnet18", "", (64, 96), 0).eval()
    levels = features.Levels(backbone, ("res3", "res4"), (64, 96))
    train, _ = read(cfg, scenes)
    drawn = [
        features.DenseFeatures(cfg, levels, train, "", tmp_path, features.Draw(5, balanced, seed))
        for seed in (1, 1, 2)
    ]
    counts = loading.Samples(train, cfg, levels.grid)[0][1]
    places = [features._chosen(each.draw, counts, 0).tolist() for each in drawn]
    assert places[0] == places[1] != places[2]
    assert drawn[0].folder == drawn[1].folder != drawn[2].folder


def test_the_vit_gives_its_patches(tmp_path, scenes):
    options = ["MODEL.BACKBONE", "vit_tiny", "FEATURES.LEVELS", "('block2', 'last')"]
    run, cfg = begin(tmp_path, scenes, "linear_semseg", *options, "INPUT.SIZE", "(32, 48)")
    (record,) = finish(run, cfg)
    assert 0 <= record.metrics["sem_seg/mIoU"] <= 100
    backbone = build_backbone("vit_tiny", "", (32, 48), 1).eval()
    _, test = read(cfg, scenes)
    images = torch.stack([loading.Samples(test, cfg)[n][0] for n in range(len(test))])
    with torch.no_grad():
        tokens = backbone.network.forward_features(backbone._normalised(images))[:, 1:]
    (file,) = (f for f in tmp_path.rglob("features_*") if not [*f.parent.glob("counts*")])
    held = np.load(file).reshape(len(test), 6, 384)
    np.testing.assert_allclose(held[..., 192:], tokens.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_grid_is_that_of_the_maps_at_any_size(name):
    backbone = build_backbone(name, "", 64, 0).eval()
    stages = ("res2", "res3", "res4", "res5")
    for size in ((33, 50), (64, 97)):
        images = torch.zeros(1, 3, *size, dtype=torch.uint8)
        with torch.no_grad():
            maps = backbone.maps(images, stages)
        for stage in stages:
            assert maps[stage].shape[1:] == (backbone.width(stage), *backbone.grid(stage, size))


WRONG = [
    (["FEATURES.LEVELS", "('res6',)"], "res6.*FEATURES.LEVELS with a resnet18.*res5"),
    (["FEATURES.LEVELS", "()"], "FEATURES.LEVELS is empty"),
    (["MODEL.BACKBONE", "vit_tiny", "INPUT.SIZE", "(40, 64)"], r"INPUT.SIZE is \(40, 64\).*32 or"),
    (["INPUT.SIZE", "64"], "INPUT.SIZE"),
    (["KNN.SHARES", "('1/8', '2/1')"], "KNN.SHARES"),
    (["CLUSTERS.COUNTS", "(0,)"], "CLUSTERS.COUNTS"),
    (["LINEAR.L3", "1"], "LINEAR.L3.*LINEAR.L2"),
    (["DATASETS.TEST", "ade20k_sem_seg_val"], "has 21 classes.*150"),
    (["DATASETS.TEST", "voc_2007_test"], "voc_2007_test.*DATASETS.TEST"),
    (["DATASETS.TEST_LIST", "nowhere.txt"], "DATASETS.TEST_LIST: 'nowhere.txt'"),
    (["--eval-only"], "--eval-only.*linear_semseg trains nothing"),
    (["--variant", "vok"], "vok.*voc"),
    (["--train-masks", "x"], "--train-masks is 'x', but linear_semseg reads its own data sets"),
]


@pytest.mark.parametrize("options, says", WRONG)
def test_what_is_wrong_is_said_before_any_work(tmp_path, scenes, capsys, options, says):
    import re

    place = ["--data", str(scenes), "-o", str(tmp_path / "out"), "--mini"]
    small = ["MODEL.BACKBONE", "resnet18", "LINEAR.STEPS", "3"]
    small = small[2:] if "MODEL.BACKBONE" in options else small
    words = ["transfer", "random", "--protocol", "linear_semseg", *place, *small, *options]
    assert densessl.main(words) == 2
    said = capsys.readouterr().err
    assert re.search(says, said, re.DOTALL) and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_more_clusters_than_positions_are_refused(tmp_path, scenes):
    with pytest.raises(InputError, match="CLUSTERS.COUNTS is .100000,"):
        finish(*begin(tmp_path, scenes, "overcluster", "CLUSTERS.COUNTS", "(100000,)"))


def test_each_data_set_of_scenes_is_read(scenes):
    sets = {"voc": 21, "cityscapes": 19, "ade20k": 150}
    sets |= {"cocostuff27": 27, "cocostuff15": 15, "cocothings12": 12}
    for variant, classes in sets.items():
        cfg = dense_probes.resolve("knn_semseg", variant, mini=True, cuda=False)
        splits = read(cfg, dense_probes.check_data(cfg, scenes, stand_in=True))
        for split in splits:
            assert len(split.classes) == classes and len(set(split.classes)) == classes
            labels = split.labels_of(0)
            assert labels.dtype == torch.uint8 and (labels < classes).any()
            assert split.open(0).size == tuple(labels.shape[::-1])


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path, scenes, weights, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    large = ["INPUT.SIZE", "(256, 256)", "FEATURES.LEVELS", "('all',)", "FEATURES.POSITIONS", "600"]
    large += ["LINEAR.L2", "0.3", "CLUSTERS.COUNTS", "()"]
    for protocol in PROBES:
        found = []
        for gpus in (1, 2):
            folder = tmp_path / f"{protocol}{gpus}"
            run, cfg = begin(folder, scenes, protocol, *large, named=str(weights), gpus=gpus)
            found.append(finish(run, cfg)[0].metrics)
        pieces = {file.name for file in folder.rglob("features_*.npy")}
        assert len(pieces) > 1 or protocol == "overcluster"  # there is something to share
        for name in ("sem_seg/mIoU", "sem_seg/pACC"):
            assert found[0][name] == pytest.approx(found[1][name], abs=0.2)


@pytest.mark.slow
def test_right_labels_are_worth_more_than_shuffled_ones(tmp_path):
    from densessl.d2_transfer.dense_probes.probing import measure
    from densessl.pretrain.scenes import main as scenes_verb

    options = ["--train", "160", "--val", "60", "--size", "96", "--seed", "3", "--workers", "1"]
    assert not scenes_verb.main([str(tmp_path / "data"), *options])
    words = [*SMALL[2:4], "INPUT.SIZE", "(96, 96)", "FEATURES.LEVELS", "('res2', 'res3')"]
    words += ["KNN.K", "1", "KNN.SHARES", "('1/1',)", "LINEAR.STEPS", "60"]
    for protocol in ("linear_semseg", "knn_semseg"):
        cfg = dense_probes.resolve(protocol, "voc", mini=True, overrides=words, cuda=False)
        train, test = read(cfg, tmp_path / "data")
        shuffled = replace(train, labels=np.roll(train.labels, 1))  # those of the image before
        found = [
            measure(cfg, split, test, "", tmp_path / protocol / name, torch.device("cpu"))
            for name, split in (("right", train), ("shuffled", shuffled))
        ]
        right, other = (metrics["sem_seg/mIoU"] for metrics in found)
        print(protocol, right, other)
        assert right > other + 1


def test_the_record_has_what_tables_of_semantic_segmentation_read(tmp_path, scenes, capsys):
    place = ["--data", str(scenes), "-o", str(tmp_path), "--mini", "--trials", "2"]
    words = ["transfer", "random", "--protocol", "linear_semseg", "--variant", "cityscapes"]
    assert densessl.main([*words, *place, *SMALL, "LINEAR.STEPS", "5"]) == 0
    assert "sem_seg/mIoU" in capsys.readouterr().out
    record = results.load(tmp_path / "trial_1")
    assert {"sem_seg/mIoU", "sem_seg/pACC", "sem_seg/IoU-road"} <= set(record.metrics)
    assert densessl.main(["table", str(tmp_path), "--per-class"]) == 0
    shown = capsys.readouterr().out
    assert "road" in shown and "linear_semseg, variant cityscapes (miniature)" in shown
    assert Path(tmp_path / "summary.json").is_file()
