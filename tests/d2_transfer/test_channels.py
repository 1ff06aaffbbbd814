"""Weights of images of four channels: converted with the proof, described, loaded in Python."""

import numpy as np
import pytest
import torch

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import convert
from densessl.d2_transfer.convert import hub
from densessl.d2_transfer.convert.inspection import examine
from densessl.d2_transfer.convert.main import main as convert_main
from densessl.d2_transfer.convert.prove import ProofFailed, prove
from tests.decoding.images import tiff_of_channels

MEAN, STD = [0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4]
AS_STORED = {"mean": MEAN, "std": STD, "channel_order": "as stored"}


@pytest.fixture(scope="module")
def four_channels(random_resnet):
    """A ResNet-18's tensors, whose first layer takes four channels."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(64, 4, 7, 7, generator=generator) / 14
    return random_resnet(18) | {"conv1.weight": weight}


@pytest.fixture(scope="module")
def of_four(our_checkpoint, four_channels, tmp_path_factory):
    """What pretraining on images of four channels leaves."""
    file = tmp_path_factory.mktemp("four") / "backbone_final.pth"
    facts = {"dataset": "tiles", "range": [0.0, 1023.0]}
    return our_checkpoint(file, 18, backbone=four_channels, normalization=AS_STORED, pretrain=facts)


@pytest.mark.parametrize("name, target", [("w.pkl", "detectron2"), ("w.pth", "torchvision")])
def test_they_are_converted_with_the_proof(of_four, four_channels, tmp_path, name, target):
    report = convert.convert(of_four, tmp_path / name, target=target)
    assert report.channels == 4 and all(stage.equal for stage in report.stages)
    assert report.stages[0].shape == (1, 4, 97, 65)
    assert "4 channels as stored, mean 51 76.5 102 127.5" in str(report)
    again = convert.convert(tmp_path / name, tmp_path / "again.pth", target="timm")
    assert "in_chans=4" in again.next_command
    held = convert.read_checkpoint(tmp_path / "again.pth")
    assert torch.equal(held["conv1.weight"], four_channels["conv1.weight"])
    facts = held.densessl
    assert (facts["channels"], facts["channel_order"]) == (4, "as stored")
    assert facts["normalization"]["pixel_std"] == pytest.approx([25.5, 51, 76.5, 102])


def test_detectron2s_own_resnet_of_four_channels_is_what_is_compared(of_four, tmp_path):
    convert.convert(of_four, tmp_path / "w.pkl")
    held = convert.read_weights(tmp_path / "w.pkl")
    reference = torch.load(of_four, weights_only=True)["backbone"]
    model = dict(held["model"])
    prove(reference, AS_STORED, model, held["densessl"])
    model["stem.conv1.weight"] = model["stem.conv1.weight"][:, [1, 0, 2, 3]]
    with pytest.raises(ProofFailed, match="stem: largest difference"):
        prove(reference, AS_STORED, model, held["densessl"])


def test_they_are_inspected(of_four):
    rows, problem = examine(of_four)
    assert problem is None
    assert dict(rows)["images"].startswith("4 channels as stored, mean 51 76.5 102 127.5, dev")


def test_a_vision_transformer_of_four_channels_is_proved(tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, in_chans=4)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    options = {"mean": MEAN, "std": STD}
    for name, target in (("w.safetensors", "safetensors"), ("w.pkl", "detectron2")):
        report = convert.convert(tmp_path / "vit.pth", tmp_path / name, target=target, **options)
        assert report.channels == 4 and all(stage.equal for stage in report.stages)


def test_others_weights_say_nothing_of_their_channels(four_channels, tmp_path, capsys):
    torch.save(four_channels, tmp_path / "foreign.pth")
    assert convert_main([str(tmp_path / "foreign.pth"), "-o", str(tmp_path / "a.pkl")]) == 0
    said = capsys.readouterr().out
    assert "does not say how its images of 4 channels were normalised" in said
    words = [str(tmp_path / "foreign.pth"), "-o", str(tmp_path / "b.pkl")]
    assert convert_main([*words, "--mean", ".1", ".2", ".3", ".4", "--std", *["0.5"] * 4]) == 0
    facts = convert.read_weights(tmp_path / "b.pkl")["densessl"]
    assert facts["normalization"]["pixel_mean"] == pytest.approx([25.5, 51, 76.5, 102])
    words[-1] = str(tmp_path / "c.pkl")
    with pytest.raises(InputError, match="--mean is 0.1 0.2 0.3; allowed: 4 numbers, one"):
        convert_main([*words, "--mean", ".1", ".2", ".3"])
    with pytest.raises(InputError, match="--channel-order is BGR, but the network takes images of"):
        convert_main([*words, "--channel-order", "BGR"])


@pytest.mark.parametrize("channels", [1, 5])
def test_weights_of_three_channels_are_made_for_others(our_checkpoint, tmp_path, channels):
    checkpoint = our_checkpoint(tmp_path / "three.pth", 18)
    words = [str(checkpoint), "-o", str(tmp_path / "w.pth"), "--channels", str(channels)]
    assert convert_main(words) == 0
    held = convert.read_checkpoint(tmp_path / "w.pth")
    three = torch.load(checkpoint, weights_only=True)["backbone"]["conv1.weight"]
    assert held["conv1.weight"].shape[1] == channels == held.densessl["channels"]
    assert torch.allclose(held["conv1.weight"].sum(1), three.sum(1), atol=1e-6)
    mean = held.densessl["normalization"]["pixel_mean"]
    rgb = [123.675, 116.28, 103.53]
    assert mean == pytest.approx([sum(rgb) / 3] if channels == 1 else [*rgb, *rgb[:2]])
    words = [str(tmp_path / "w.pth"), "-o", str(tmp_path / "v.pth"), "--channels", "4"]
    with pytest.raises(InputError, match=f"of 4 channels are asked for .*; allowed: {channels}"):
        convert_main(words)


def test_the_hubs_folder_says_the_channels_to_timm(of_four, four_channels, tmp_path):
    timm = pytest.importorskip("timm")
    hub.write_folder(of_four, tmp_path / "hub")
    network = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True, num_classes=0)
    assert torch.equal(network.conv1.weight, four_channels["conv1.weight"])
    assert network.pretrained_cfg["mean"] == pytest.approx(MEAN)


def test_their_features_are_had_in_python(of_four, four_channels, tmp_path):
    backbone = densessl.load_backbone(of_four).eval()
    assert backbone.normalization == AS_STORED
    data = np.random.default_rng(0).integers(0, 1024, (64, 64, 4), dtype=np.uint16)
    tiff_of_channels(tmp_path / "a.tif", data)
    image = backbone.transform(tmp_path / "a.tif")
    wanted = torch.from_numpy(np.rint(data / 1023 * 255)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    assert torch.allclose(image, ((wanted - mean) / std).float(), atol=1e-5)
    assert backbone(image[None])["layer4"].shape == (1, 512, 2, 2)
    with pytest.raises(InputError, match="the image has 3 channels; allowed: 4"):
        backbone.transform(torch.zeros(3, 8, 8))
