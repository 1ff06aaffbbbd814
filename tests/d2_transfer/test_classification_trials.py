"""Trials of the classification protocols: records, features on disk, stops, several processes."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch

import densessl
from densessl.core import waiting
from densessl.core.errors import EnvironmentLacks, InputError, StoppedEarly
from densessl.d2_transfer import classification, main, results, trials
from densessl.d2_transfer.classification import features, fit
from densessl.d2_transfer.classification.data import read
from densessl.d2_transfer.classification.loading import EvaluationCrops
from densessl.d2_transfer.classification.networks import build_backbone
from densessl.d2_transfer.protocols import PROTOCOLS

SMALL = ["INPUT.SIZE", "16", "INPUT.RESIZE", "16", "MODEL.BACKBONE", "resnet18"]


def begin(folder, data, protocol, *overrides, variant=None, named="random", gpus=1, steps=3):
    """A run and its config, as ``densessl transfer --mini`` makes them."""
    words = [*SMALL, "SOLVER.MAX_ITER", str(steps), *overrides]
    cfg = classification.resolve(protocol, variant, gpus, mini=True, overrides=words, cuda=False)
    row = PROTOCOLS[protocol]
    run = trials.Run(
        folder=folder,
        protocol=protocol,
        variant=variant or row.variants[0],
        mini=True,
        weights=classification.prepare(named, folder, cfg),
        data=classification.check_data(cfg, data),
        gpus=gpus,
    )
    return run, cfg


def finish(run, cfg, count=1, seed=1):
    records, failed = trials.run_trials(run, cfg, count, seed, classification.run_trial)
    assert not failed
    return records


@pytest.fixture(scope="module")
def weights(tmp_path_factory, our_checkpoint):
    return our_checkpoint(tmp_path_factory.mktemp("weights") / "backbone_final.pth", depth=18)


# ---- k-NN ----


def test_knn_records_what_a_plain_computation_gives(tmp_path, scenes, weights):
    stages = ["KNN.STAGES", "('res3', 'res5')", "KNN.KS", "(1, 5, 20)", "KNN.TEMPERATURE", "0.2"]
    run, cfg = begin(tmp_path, scenes, "knn", *stages, named=str(weights))
    (record,) = finish(run, cfg)
    backbone = build_backbone("auto", run.weights.file, 16, 0).eval()
    splits = read(cfg, scenes)
    for stage in ("res3", "res5"):
        rows = []
        for images in splits:
            crops = [EvaluationCrops(images, cfg)[n][0] for n in range(len(images))]
            with torch.no_grad():
                found = backbone.stages(torch.stack(crops), (stage,))[stage].double().numpy()
            rows.append(found / np.linalg.norm(found, axis=1, keepdims=True))
        similarity = rows[1] @ rows[0].T
        for k in (1, 5, 20):
            hits = []
            for row, label in zip(similarity, splits[1].labels, strict=True):
                nearest = np.argsort(-row, kind="stable")[:k]
                votes = np.zeros(8)
                np.add.at(votes, splits[0].labels[nearest], np.exp(row[nearest] / 0.2))
                hits.append(votes.argmax() == label)
            expected = 100 * np.mean(hits)
            assert record.metrics[f"knn/top1_{stage}_k{k}"] == pytest.approx(expected)
    assert record.metrics["knn/top1"] == record.metrics["knn/top1_res5_k20"]
    assert record.method == "setsim" and record.protocol == "knn" and record.mini


def test_features_are_computed_once_for_all_runs_that_share_a_cache(tmp_path, scenes, weights):
    shared = ["KNN.CACHE", str(tmp_path / "cache")]
    run, cfg = begin(tmp_path / "a", scenes, "knn", *shared, named=str(weights))
    (first,) = finish(run, cfg)
    pieces = sorted((tmp_path / "cache").rglob("*.npy"))
    times = [piece.stat().st_mtime_ns for piece in pieces]
    assert len(pieces) == 2
    other = [*shared, "KNN.TEMPERATURE", "0.5", "KNN.STAGES", "('res5',)"]
    run, cfg = begin(tmp_path / "b", scenes, "knn", *other, named=str(weights))
    (second,) = finish(run, cfg)
    assert [piece.stat().st_mtime_ns for piece in pieces] == times
    assert second.metrics["knn/top1_k10"] >= 0 and first.config_sha256 != second.config_sha256
    run, cfg = begin(
        tmp_path / "c", scenes, "knn", *shared, "INPUT.RESIZE", "18", named=str(weights)
    )
    finish(run, cfg)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 4  # other images, other features


def test_a_random_start_has_other_features_with_each_seed(tmp_path, scenes):
    run, cfg = begin(tmp_path, scenes, "knn")
    records = finish(run, cfg, 2)
    assert [record.seed for record in records] == [1, 2]
    assert len(list((tmp_path / "features").iterdir())) == 4
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"]["knn/top1"]["n"] == 2


def test_stopped_extraction_goes_on_with_the_missing_pieces(tmp_path, scenes, monkeypatch):
    monkeypatch.setattr(features, "PIECE", 8)
    run, cfg = begin(tmp_path, scenes, "knn")
    compute = features.Features._compute_piece

    def stop(self, first):
        compute(self, first)
        if first:
            waiting.ask()

    monkeypatch.setattr(features.Features, "_compute_piece", stop)
    with pytest.raises(StoppedEarly, match="2 of 4 pieces"):
        finish(run, cfg)
    written = {piece: piece.stat().st_mtime_ns for piece in tmp_path.rglob("*.npy")}
    assert len(written) == 2
    monkeypatch.setattr(features.Features, "_compute_piece", compute)
    (record,) = finish(run, cfg)
    assert all(piece.stat().st_mtime_ns == time for piece, time in written.items())
    whole, cfg = begin(tmp_path / "whole", scenes, "knn")
    assert finish(whole, cfg)[0].metrics == record.metrics


def test_features_that_are_no_numbers_are_refused(tmp_path, scenes):
    _, cfg = begin(tmp_path, scenes, "knn")
    backbone = build_backbone("resnet18", "", 16, 0).eval()
    backbone.network.layer4[1].bn2.bias.data[0] = float("nan")
    images, _ = read(cfg, scenes)
    features_ = features.Features(cfg, backbone, ("res4", "res5"), images, "", tmp_path / "cache")
    with pytest.raises(InputError, match="features at res5 of images 0 to .* are not finite"):
        features_.compute("features")


def test_a_full_disk_is_said_before_the_work(tmp_path, scenes, monkeypatch):
    run, cfg = begin(tmp_path, scenes, "knn")
    usage = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(EnvironmentLacks, match=r"0.1 GB free; .* KNN.CACHE"):
        finish(run, cfg)


# ---- what is trained ----


def test_linear_records_every_rate(tmp_path, scenes, weights):
    rates = ["SOLVER.SWEEP", "(0.1, 1.0)", "TEST.EVAL_PERIOD", "0.5"]
    run, cfg = begin(tmp_path, scenes, "linear", *rates, named=str(weights), steps=4)
    (record,) = finish(run, cfg)
    of_rates = {rate: record.metrics[f"linear/top1_lr{rate}"] for rate in ("0.01", "0.1", "1")}
    assert record.metrics["linear/top1"] == of_rates["0.01"]
    assert record.metrics["linear/top1_best_lr"] == max(of_rates.values())
    assert record.metrics["linear/top1_best_epoch"] >= record.metrics["linear/top1"]
    assert of_rates[f"{record.metrics['linear/best_lr']:g}"] == max(of_rates.values())
    folder = run.trial_folder(1)
    kept = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    assert list(kept) == [f"layers.{n}.{part}" for n in range(3) for part in ("weight", "bias")]
    assert not list(folder.glob("model_0*"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["trial"] == 1 for line in lines) and lines[-1]["iteration"] == 4


@pytest.mark.parametrize(
    "protocol, variant", [("semisup_1pct", None), ("finetune_cls", "voc_objects")]
)
def test_a_search_is_shared_by_the_trials(tmp_path, scenes, protocol, variant):
    run, cfg = begin(tmp_path, scenes, protocol, "DATASETS.SHARE", "0.8", variant=variant, steps=2)
    first, second = finish(run, cfg, 2)
    chosen = [name for name in first.metrics if name.startswith("search/")]
    assert {"search/base_lr", "search/top1"} <= set(chosen)
    assert [first.metrics[name] for name in chosen] == [second.metrics[name] for name in chosen]
    for record in (first, second):
        assert 0 <= record.metrics["cls/top1"] <= record.metrics["cls/top5"] <= 100
        assert math.isfinite(record.metrics["cls/mean_class"])
        written = results.config_fingerprint(results.config_of(record))
        assert written == results.config_fingerprint(results.as_dict(cfg))
    assert len(list((tmp_path / "search").glob("*/00*/score.json"))) == 2


def test_a_finished_trial_is_not_run_again_and_another_config_is_refused(tmp_path, scenes):
    run, cfg = begin(tmp_path, scenes, "linear")
    finish(run, cfg)
    record = run.trial_folder(1) / "result.json"
    before = record.stat().st_mtime_ns
    finish(run, cfg)
    assert record.stat().st_mtime_ns == before
    run, cfg = begin(tmp_path, scenes, "linear", "SOLVER.BASE_LR", "0.5")
    with pytest.raises(InputError, match="holds another run .SOLVER.BASE_LR 0.01 there, 0.5 here"):
        finish(run, cfg)


@pytest.mark.parametrize(
    "protocol, variant", [("linear", None), ("semisup_1pct", None), ("finetune_cls", "voc_objects")]
)
def test_a_stopped_trial_is_known_as_begun_and_goes_on_bit_for_bit(
    tmp_path, scenes, monkeypatch, protocol, variant
):
    def again(folder, *overrides):
        words = ["SEARCH.BASE_LR", "()", "SOLVER.BASE_LR", "0.02", *overrides]
        return begin(folder, scenes, protocol, *words, variant=variant, steps=5)

    run, cfg = again(tmp_path)
    asked = iter([False, True])
    monkeypatch.setattr(waiting, "asked", lambda: next(asked))
    with pytest.raises(StoppedEarly, match="stopped at step 2 of 5"):
        finish(run, cfg)
    monkeypatch.undo()
    with pytest.raises(InputError, match="holds another run"):
        finish(*again(tmp_path, "SOLVER.BASE_LR", "0.5"))
    (record,) = finish(run, cfg)
    whole, cfg = again(tmp_path / "whole")
    assert finish(whole, cfg)[0].metrics == record.metrics
    ends = [
        torch.load(each.trial_folder(1) / "model_final.pth", weights_only=True)["model"]
        for each in (run, whole)
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(
    "protocol, variant", [("linear", None), ("semisup_1pct", None), ("finetune_cls", "voc_objects")]
)
def test_a_trial_whose_evaluation_failed_is_evaluated_and_not_trained_again(
    tmp_path, scenes, monkeypatch, protocol, variant
):
    """A broken test image; put right, with another size of file; the verb's own way."""
    copy = tmp_path / "data"
    shutil.copytree(scenes, copy)
    # checked before: the first image alone; the last one is found by the evaluation
    name = read(begin(tmp_path / "x", copy, protocol, variant=variant)[1], copy)[1]
    image = copy / name.name(len(name) - 1)
    whole = image.read_bytes()
    image.unlink()  # it may be one file with another layout's
    image.write_bytes(whole[: len(whole) // 2])

    def words(folder, data):
        options = ["SEARCH.BASE_LR", "()", "SOLVER.BASE_LR", "0.02", "TEST.EVAL_PERIOD", "0.0"]
        options = options[2 if protocol == "linear" else 0 :]
        named = ["--variant", variant] if variant else []
        where = ["--mini", "--trials", "1", "-o", str(folder), "--data", str(data)]
        steps = ["SOLVER.MAX_ITER", "3"]
        return ["random", "--protocol", protocol, *named, *where, *SMALL, *steps, *options]

    with pytest.raises(InputError, match="cannot be read.*trial 1 is trained, and its model kept"):
        main.main(words(tmp_path / "out", copy))
    trial = tmp_path / "out" / "trial_1"
    trained = torch.load(trial / "model_final.pth", weights_only=True)["model"]
    assert not (trial / "result.json").exists()
    image.write_bytes(whole)

    def trains(self, images, labels):
        raise AssertionError("a trained model was trained on")

    with monkeypatch.context() as patched:
        patched.setattr(fit.Fit, "_one_step", trains)
        assert main.main(words(tmp_path / "out", copy)) == 0
    assert main.main(words(tmp_path / "whole", scenes)) == 0
    record, same = (results.load(tmp_path / each / "trial_1") for each in ("out", "whole"))
    assert record.metrics == pytest.approx(same.metrics, nan_ok=True, rel=0, abs=0)
    kept = torch.load(trial / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(kept[name], trained[name]) for name in kept)
    assert not list(trial.glob("model_0*"))


@pytest.mark.parametrize("start", ["random", "weights"])
@pytest.mark.parametrize("protocol", ["linear", "finetune_cls"])
def test_a_trained_classifier_is_evaluated_again_with_the_same_numbers(
    tmp_path, scenes, weights, monkeypatch, protocol, start
):
    def words(model, folder, *more):
        how = ["--protocol", protocol, "--mini", "-o", str(tmp_path / folder), *more]
        named = ["--variant", "voc_objects"] if protocol == "finetune_cls" else []
        grid = ["SEARCH.BASE_LR", "()"] if named else ["SOLVER.SWEEP", "(0.1, 0.3)"]
        where = ["--data", str(scenes)]
        small = [*SMALL[:4], "SOLVER.MAX_ITER", "3", *grid]
        return [str(model), *named, *how, *where, "MODEL.BACKBONE", "resnet18", *small]

    source = weights if start == "weights" else "random"
    assert main.main(words(source, "run", "--trials", "1", "--seed", "4")) == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    trial = tmp_path / "moved" / "trial_1"
    monkeypatch.setattr(fit.Fit, "__init__", None)  # nothing is trained
    assert main.main(words(trial, "again", "--eval-only")) == 0
    record, again = results.load(trial), results.load(tmp_path / "again")
    told_by_training = {"linear/top1_best_epoch", "cls/top1_best_epoch"}
    expected = {k: v for k, v in record.metrics.items() if k not in told_by_training}
    assert again.metrics == pytest.approx(expected, nan_ok=True, rel=0, abs=0)
    assert again.evaluated["path"] == str(trial / "model_final.pth")
    for name in ("method", "weights", "pretrain", "seed", "mini", "config_sha256"):
        assert getattr(again, name) == getattr(record, name)
    (trial / "config.yaml").rename(tmp_path / "config.yaml")
    with pytest.raises(InputError, match="config.yaml"):
        main.main(words(trial, "other", "--eval-only"))
    assert not (tmp_path / "other").exists()


def test_knn_has_no_trained_model_to_evaluate(tmp_path, scenes):
    words = ["x.pth", "--protocol", "knn", "--mini", "--eval-only", "--data", str(scenes)]
    with pytest.raises(InputError, match="knn trains nothing"):
        main.main([*words, "-o", str(tmp_path / "out")])


def test_a_trial_is_not_resumed_on_other_training_images(tmp_path, scenes, monkeypatch):
    copy = tmp_path / "data"
    shutil.copytree(scenes, copy)
    overrides = ["SOLVER.BASE_LR", "0.02", "TEST.EVAL_PERIOD", "0.5"]
    run, cfg = begin(tmp_path / "out", copy, "linear", *overrides, steps=5)
    asked = iter([False, True])
    monkeypatch.setattr(waiting, "asked", lambda: next(asked))
    with pytest.raises(StoppedEarly, match="stopped at step 2 of 5"):
        finish(run, cfg)
    monkeypatch.undo()
    train, test = read(cfg, copy)
    for images in (test, train):  # a text after its end is no part of a picture
        image = images.root / images.name(0)
        content = image.read_bytes()
        image.unlink()
        image.write_bytes(content + b"another")
        if images is test:
            kept = {file.name: file.read_bytes() for file in run.trial_folder(1).iterdir()}
            (record,) = finish(run, cfg)
            assert 0 <= record.metrics["linear/top1"] <= 100
            for name, held in kept.items():
                (run.trial_folder(1) / name).write_bytes(held)
            (run.trial_folder(1) / "result.json").unlink()
    with pytest.raises(InputError, match="belongs to a trial on other training images"):
        finish(run, cfg)


def test_the_vit_runs_every_protocol(tmp_path, scenes):
    vit = ["MODEL.BACKBONE", "vit_tiny", "SOLVER.IMS_PER_BATCH", "8", "SEARCH.BASE_LR", "()"]
    for protocol, variant in (("knn", "stages"), ("linear", None), ("semisup_10pct", None)):
        run, cfg = begin(tmp_path / protocol, scenes, protocol, *vit, variant=variant, steps=2)
        (record,) = finish(run, cfg)
        assert all(0 <= v <= 100 for name, v in record.metrics.items() if "top" in name)
    held = torch.load(tmp_path / "linear/trial_1/model_final.pth", weights_only=True)["model"]
    assert held["layers.0.weight"].shape == (8, 4 * 192)


@pytest.mark.parametrize(
    "protocol, overrides, says",
    [
        ("knn", [], "VOC's objects is missing .*VOC2007/ImageSets/Main/trainval.txt is not there"),
        ("semisup_1pct", ["DATASETS.LIST", "mine.txt"], "VOC's objects is missing"),
        ("finetune_cls", [], "CIFAR-10 is missing .*expected: .*Name the folder with --data DIR"),
    ],
)
def test_missing_data_is_one_message_and_leaves_nothing(
    tmp_path, capsys, protocol, overrides, says
):
    words = ["transfer", "random", "--protocol", protocol, "--mini", "--data", str(tmp_path)]
    assert densessl.main([*words, "-o", str(tmp_path / "out"), *overrides]) == 2
    said = capsys.readouterr()
    assert re.search(says, said.err, re.DOTALL) and "Traceback" not in said.err and not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path, scenes, weights, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = {}
    for gpus in (1, 2):
        run, cfg = begin(tmp_path / f"knn{gpus}", scenes, "knn", named=str(weights), gpus=gpus)
        found["knn", gpus] = finish(run, cfg)[0].metrics
        run, cfg = begin(
            *(tmp_path / f"linear{gpus}", scenes, "linear", "SOLVER.BASE_LR", "0.1"),
            *("SOLVER.SWEEP", "()"),
            named=str(weights),
            gpus=gpus,
        )
        found["linear", gpus] = finish(run, cfg)[0].metrics
        kept = torch.load(run.trial_folder(1) / "model_final.pth", weights_only=True)["model"]
        found["weight", gpus] = kept["layers.0.weight"]
    assert found["knn", 1] == found["knn", 2]
    assert torch.allclose(found["weight", 1], found["weight", 2], rtol=1e-4, atol=1e-6)
    run, cfg = begin(
        *(tmp_path / "finetune", scenes, "finetune_cls", "SEARCH.BASE_LR", "(0.01, 0.02)"),
        variant="voc_objects",
        gpus=2,
    )
    (record,) = finish(run, cfg)
    assert 0 <= record.metrics["cls/top1"] <= 100
