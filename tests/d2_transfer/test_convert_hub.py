"""``densessl convert --to hub``: a folder that timm loads as it is, and its model card."""

import json

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

import densessl
from densessl.core import files
from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.convert import main


@pytest.fixture(scope="module")
def checkpoint(our_checkpoint, tmp_path_factory):
    normalization = {"mean": [0.5, 0.4, 0.3], "std": [0.25] * 3, "channel_order": "RGB"}
    path = tmp_path_factory.mktemp("run") / "backbone_final.pth"
    return our_checkpoint(path, normalization=normalization)


def record(folder, sha256, top1, protocol="knn", mini=False):
    folder.mkdir(parents=True)
    made = results.Record(
        method="setsim",
        weights={"path": "w", "sha256": sha256},
        pretrain={},
        protocol=protocol,
        variant="",
        seed=1,
        metrics={"knn/top1": top1},
        config_sha256="0",
        versions={},
        started=results.now(),
        finished=results.now(),
        mini=mini,
    )
    results.save(folder, made)


def write(checkpoint, folder, *more):
    return main.main([str(checkpoint), "-o", str(folder), "--to", "hub", *map(str, more)])


def test_timm_loads_the_folder_and_its_normalization(checkpoint, tmp_path):
    assert write(checkpoint, tmp_path / "hub") == 0
    network = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(network)
    assert config["mean"] == pytest.approx((0.5, 0.4, 0.3))
    assert config["std"] == pytest.approx((0.25,) * 3)
    backbone = densessl.load_backbone(tmp_path / "hub").eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network.forward_features(images), backbone(images)["layer4"])
    file = {"file": str(tmp_path / "hub" / "model.safetensors"), "num_classes": 0}
    other = timm.create_model(
        "resnet18", pretrained=True, num_classes=0, pretrained_cfg_overlay=file
    )
    for name, tensor in load_file(file["file"]).items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert write(checkpoint, tmp_path / "hub") == 0  # the same again


def test_a_vit_travels_too(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    write(tmp_path / "vit.pth", tmp_path / "hub")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


def test_the_card_says_what_is_known_and_no_more(checkpoint, tmp_path):
    sha256 = files.sha256(checkpoint)
    record(tmp_path / "out" / "a" / "trial_1", sha256, 50.0)
    record(tmp_path / "out" / "a" / "trial_2", sha256, 54.0)
    record(tmp_path / "out" / "b" / "trial_1", "0" * 64, 99.0)  # of other weights
    record(tmp_path / "out" / "c" / "trial_1", sha256, 98.0, mini=True)
    write(checkpoint, tmp_path / "hub", "--license", "apache-2.0", "--results", tmp_path / "out")
    _, head, text = (tmp_path / "hub" / "README.md").read_text().split("---\n", 2)
    read = yaml.safe_load(head)
    assert read["license"] == "apache-2.0" and "setsim" in read["tags"]
    assert "dataset imagenet100" in text and "epochs 200" in text
    assert "| knn | knn/top1 | 52.00 | 2.83 | 2 |" in text and "99" not in text.split("Measured")[1]
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["architecture"] == "resnet18"


@pytest.mark.parametrize(
    "more, says",
    [
        (["--channel-order", "BGR"], "wants BGR images"),
        (["--results", "records"], "no trial in or below records is of"),
        (["--from", "mocov2"], "unknown layout 'mocov2'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    checkpoint, tmp_path, monkeypatch, more, says
):
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "records" / "trial_1", "0" * 64, 1.0)
    with pytest.raises(InputError, match=says):
        write(checkpoint, "hub", *more)
    assert not (tmp_path / "hub").exists()


def test_a_card_that_was_edited_is_kept(checkpoint, tmp_path):
    write(checkpoint, tmp_path / "hub")
    (tmp_path / "hub" / "README.md").write_text("my own words")
    with pytest.raises(InputError, match="README.md exists with other contents; --force"):
        write(checkpoint, tmp_path / "hub")
    assert (tmp_path / "hub" / "README.md").read_text() == "my own words"


def test_the_cards_options_are_for_the_hub_alone(checkpoint, tmp_path):
    with pytest.raises(InputError, match="--license and --results are for --to hub"):
        main.main([str(checkpoint), "-o", str(tmp_path / "w.pth"), "--license", "mit"])
