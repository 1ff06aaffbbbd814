"""The random start with the batch-norm statistics of the data, beside the plain one."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet

import densessl
from densessl.d2_transfer import dense_probes, results
from densessl.d2_transfer.classification import controls
from densessl.d2_transfer.classification.networks import build_backbone
from densessl.d2_transfer.dense_probes.data import read
from densessl.d2_transfer.dense_probes.loading import Samples

SMALL = ["MODEL.BACKBONE", "resnet18", "INPUT.SIZE", "(32, 48)"]
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


def settled(scenes, seed: int):
    cfg = dense_probes.resolve("linear_semseg", "voc", mini=True, overrides=SMALL, cuda=False)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.SEED = "random_bn", seed
    backbone = build_backbone("resnet18", cfg.MODEL.WEIGHTS, (32, 48), seed).eval()
    train, _ = read(cfg, scenes)
    samples = Samples(train, cfg)
    controls.settle(backbone, samples, len(train), cfg, train.path)
    return backbone, samples, len(train)


def test_each_norm_has_the_mean_of_its_statistics_over_the_batches(scenes, monkeypatch):
    monkeypatch.setattr(controls, "BATCH", 3)  # two batches of three
    backbone, samples, count = settled(scenes, 4)
    assert count == 6 and not backbone.training
    torch.manual_seed(4)
    plain = resnet.resnet18()
    same = {name: tensor for name, tensor in plain.state_dict().items() if "running" not in name}
    held = backbone.network.state_dict()
    for name, tensor in same.items():
        if "num_batches" not in name and not name.startswith("fc"):
            assert torch.equal(held[name], tensor)
    found = {name: [] for name, each in plain.named_modules() if isinstance(each, nn.BatchNorm2d)}

    def watch(name):
        def hook(module, inputs, output):
            x = inputs[0].transpose(0, 1).flatten(1)
            found[name].append((x.mean(1), x.var(1)))  # unbiased, as torch keeps it

        return hook

    for name in found:
        plain.get_submodule(name).register_forward_hook(watch(name))
    plain.train()
    numbers = controls._drawn(count, 4)
    assert [len(each) for each in numbers] == [3, 3]
    for batch in numbers:
        images = torch.stack([samples[n][0] for n in batch]).float()
        with torch.no_grad():
            plain((images - MEAN[:, None, None]) / STD[:, None, None])
    for name, statistics in found.items():
        for place, kept in enumerate(("running_mean", "running_var")):
            expected = (statistics[0][place] + statistics[1][place]) / 2
            torch.testing.assert_close(held[f"{name}.{kept}"], expected, rtol=1e-4, atol=1e-5)


def test_the_statistics_are_a_function_of_the_seed(scenes):
    one, again, other = (settled(scenes, seed)[0].state_dict() for seed in (1, 1, 2))
    name = "network.layer2.0.bn1.running_mean"
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one[name], other[name]) and one[name].abs().sum() > 0


def test_both_controls_stand_in_one_table(tmp_path, scenes, capsys):
    for start in ("random", "random_bn"):
        words = ["transfer", start, "--protocol", "knn_semseg", "--mini", "--trials", "1"]
        place = ["--data", str(scenes), "-o", str(tmp_path / start)]
        assert densessl.main([*words, *place, *SMALL, "FEATURES.LEVELS", "('res2',)"]) == 0
    found = {start: results.load(tmp_path / start / "trial_1") for start in ("random", "random_bn")}
    assert found["random_bn"].method == found["random_bn"].weights["path"] == "random_bn"
    assert found["random"].metrics != found["random_bn"].metrics
    assert found["random"].config_sha256 == found["random_bn"].config_sha256
    capsys.readouterr()
    assert densessl.main(["table", str(tmp_path), "--baseline", "random_bn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| random")]
    assert rows == ["random", "random, data's batch norm"]


@pytest.mark.parametrize("protocol, metric", [("knn", "knn/top1"), ("linear", "linear/top1")])
def test_frozen_classification_takes_it(tmp_path, scenes, protocol, metric):
    small = ["MODEL.BACKBONE", "resnet18", "INPUT.SIZE", "16", "INPUT.RESIZE", "16"]
    small += ["SOLVER.MAX_ITER", "2"] if protocol == "linear" else []
    words = ["--protocol", protocol, "--mini", "--data", str(scenes)]
    out = ["-o", str(tmp_path / "out"), "--trials", "1"]
    assert densessl.main(["transfer", "random_bn", *words, *out, *small]) == 0
    record = results.load(tmp_path / "out" / "trial_1")
    assert record.method == "random_bn" and 0 <= record.metrics[metric] <= 100
    if protocol == "linear":
        again = ["--eval-only", "-o", str(tmp_path / "again")]
        trial = str(tmp_path / "out" / "trial_1")
        assert densessl.main(["transfer", trial, *words, *again, *small]) == 0
        found = results.load(tmp_path / "again")
        assert found.metrics[metric] == record.metrics[metric] and found.method == "random_bn"


@pytest.mark.parametrize(
    "protocol, options, why",
    [
        ("semisup_1pct", ["MODEL.BACKBONE", "resnet18"], "fine-tuning"),
        ("voc_det_c4", [], "Detectron2"),
        ("overcluster", ["MODEL.BACKBONE", "vit_tiny"], "a vit_tiny has no batch norm"),
    ],
)
def test_others_refuse_it(tmp_path, scenes, capsys, protocol, options, why):
    words = ["transfer", "random_bn", "--protocol", protocol, "--mini", "--data", str(scenes)]
    assert densessl.main([*words, "-o", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert why in said and "'random'" in said and "linear_semseg" in said
    assert not (tmp_path / "out").exists()
