"""How a network wants its images: what files say, what people say, and what is assumed."""

import argparse
import json
import logging
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, weights
from densessl.d2_transfer.convert import convert, main, read_weights
from densessl.weight_files.keys import detectron2_names
from densessl.weight_files.recognise import from_file, recognise

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "RGB"}
HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB"}


@pytest.fixture(scope="module")
def resnet(random_resnet):
    return random_resnet(18)


@pytest.fixture(scope="module")
def plain(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "plain.pth"
    torch.save(resnet, path)
    return path


def close(normalization: dict, wanted: dict) -> bool:
    same = normalization["channel_order"] == wanted["channel_order"]
    return same and all(normalization[k] == pytest.approx(wanted[k]) for k in ("mean", "std"))


# What people say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, mean, std",
    [
        ("--mean 0.5 0.5 0.5 --std 0.25 0.25 0.5", [127.5] * 3, [63.75, 63.75, 127.5]),
        ("--mean 127.5 127.5 127.5 --std 63.75 63.75 1", [127.5] * 3, [63.75, 63.75, 1]),
        ("--mean 103.53 116.28 123.675 --std 1 1 1", [103.53, 116.28, 123.675], [1, 1, 1]),
        ("--std 1 1 1", [123.675, 116.28, 103.53], [1, 1, 1]),
        ("--mean 0 0 0 --std 1 1 1", [0, 0, 0], [255] * 3),
        ("--mean 0 0 0 --std 58 57 57", [0, 0, 0], [58, 57, 57]),
    ],
)
def test_mean_and_std_of_0_1_and_of_0_255(plain, tmp_path, words, mean, std):
    words = [str(plain), "-o", str(tmp_path / "w.pkl"), *words.split(), "--channel-order", "BGR"]
    assert main.main(words) == 0
    facts = read_weights(tmp_path / "w.pkl")["densessl"]
    assert facts["normalization"]["pixel_mean"] == pytest.approx(mean, abs=1e-5)
    assert facts["normalization"]["pixel_std"] == pytest.approx(std, abs=1e-5)
    assert facts["channel_order"] == "BGR" and facts["stride_in_1x1"] is False


def test_the_stride_that_people_say_is_in_the_proof_and_the_detector(
    random_resnet, tmp_path, capsys
):
    torch.save(random_resnet(50), tmp_path / "caffe.pth")
    assert main.main([f"{tmp_path}/caffe.pth", "-o", f"{tmp_path}/w.pkl", "--stride-in-1x1"]) == 0
    said = capsys.readouterr().out
    assert "torchvision's resnet50, the stride in its 1x1 convolutions, with these weights" in said
    assert read_weights(tmp_path / "w.pkl")["densessl"]["stride_in_1x1"] is True
    again = [f"{tmp_path}/w.pkl", "-o", f"{tmp_path}/v.pth", "--no-stride-in-1x1"]
    assert main.main(again) == 0
    assert "stride in the 1x1; the command line counts" in capsys.readouterr().out
    assert from_file(tmp_path / "v.pth")[1].stride_in_1x1 is False


@pytest.mark.parametrize(
    "words, says",
    [
        ("--mean 0.5 0.5 300", "--mean is 0.5 0.5 300; allowed"),
        ("--mean -1 0 0", "--mean is -1 0 0; allowed"),
        ("--std 0 1 1", "--std is 0 1 1; allowed"),
        ("--mean nan 0 0", "--mean is nan 0 0; allowed"),
        ("--mean 0.5 0.5 0.5 --std 58 57 57", "--mean is of 0-1 images and --std 58 57 57 of"),
        ("--mean 0.5", "--mean is 0.5; allowed: 3 numbers, one of each channel"),
        ("--channel-order rgb", "unknown channel order 'rgb'.*'RGB'"),
        ("--stride-in-1x1", "--stride-in-1x1 is for ResNets with bottleneck.*ResNet-18"),
    ],
)
def test_what_cannot_be_is_refused(plain, tmp_path, capsys, words, says):
    code = densessl.main(["convert", str(plain), "-o", str(tmp_path / "w.pkl"), *words.split()])
    assert code == 2 and not (tmp_path / "w.pkl").exists()
    with pytest.raises(InputError, match=says):
        main.main([str(plain), "-o", str(tmp_path / "w.pkl"), *words.split()])


def test_people_count_over_the_file_and_the_report_says_both(our_checkpoint, tmp_path):
    report = convert(our_checkpoint(tmp_path / "c.pth"), tmp_path / "w.pth", mean=[0.5] * 3)
    assert "the file says RGB, mean 123.675 116.28 103.53" in str(report)
    assert "images      RGB, mean 127.5 127.5 127.5, deviation 58.395" in str(report)
    assert "by the command line, the rest by the file" in str(report)


# What files say -----------------------------------------------------------------------------------


def detector(state: dict, mean, std) -> dict:
    names = detectron2_names(18 if "layer1.0.conv3.weight" not in state else 50)
    model = {f"backbone.bottom_up.{names[name]}": tensor for name, tensor in state.items()}
    buffers = {"pixel_mean": mean, "pixel_std": std}
    return model | {name: torch.tensor(v).view(3, 1, 1) for name, v in buffers.items()}


@pytest.mark.parametrize(
    "mean, std, order, caffe",
    [
        ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], "BGR", True),
        ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], "BGR", False),
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "RGB", False),
        ([127.5, 127.5, 127.5], [127.5, 127.5, 127.5], "RGB", False),
    ],
)
def test_the_buffers_of_a_detector(resnet, tmp_path, mean, std, order, caffe):
    torch.save({"model": detector(resnet, mean, std), "iteration": 9}, tmp_path / "model.pth")
    _, found = from_file(tmp_path / "model.pth")
    wanted = {"mean": [v / 255 for v in mean], "std": [v / 255 for v in std]}
    assert close(found.normalization, wanted | {"channel_order": order})
    assert found.stride_in_1x1 is caffe and "--channel-order" in found.notes[-1]
    wrapped = {f"module.{name}": tensor for name, tensor in detector(resnet, mean, std).items()}
    assert recognise({"model": wrapped}).images == found.images


def test_the_arrays_of_a_detector(resnet, tmp_path):
    model = detector(resnet, [102.98, 115.95, 122.77], [1.0, 1.0, 1.0])
    held = {"model": {name: t.numpy() for name, t in model.items()}, "__author__": "me"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(held))
    _, found = from_file(tmp_path / "w.pkl")
    assert found.normalization["mean"][0] * 255 == pytest.approx(102.98, abs=1e-3)
    assert found.normalization["channel_order"] == "BGR" and found.images.by


@pytest.mark.parametrize("older", [False, True])
def test_timms_configuration_beside_the_file(resnet, tmp_path, older):
    settings = {"architecture": "resnet18", "mean": [0.5] * 3, "std": [0.5] * 3}
    settings = settings if older else {"architecture": "resnet18", "pretrained_cfg": settings}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file(resnet, tmp_path / "model.safetensors")
    _, found = from_file(tmp_path / "model.safetensors")
    assert close(found.normalization, HALVES) and found.images.by.startswith("config.json")
    report = convert(tmp_path / "model.safetensors", tmp_path / "w.pkl")
    assert "mean 127.5 127.5 127.5, deviation 127.5 127.5 127.5 (of 0-255), by config.json" in str(
        report
    )


def test_timm_itself_writes_it_so(tmp_path):
    """A ViT of timm, saved for the hub by timm."""
    hub = pytest.importorskip("timm.models._hub")
    network = timm.create_model("vit_tiny_patch16_224.augreg_in21k", pretrained=False)
    try:
        hub.save_for_hf(network, tmp_path, safe_serialization=True)
    except (AssertionError, ImportError):
        pytest.skip("timm needs huggingface_hub to write it")
    _, found = from_file(tmp_path / "model.safetensors")
    assert (found.network, close(found.normalization, HALVES)) == ("vit_tiny", True)


@pytest.mark.parametrize(
    "held",
    [
        {"pretrained_cfg": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}},
        {"args": argparse.Namespace(mean=[0.5] * 3, std=[0.5] * 3)},
        {"args": argparse.Namespace(model="vit_tiny_patch16_224"), "arch": "x", "version": 2},
    ],
)
def test_timms_configuration_in_a_training_file(resnet, tmp_path, held):
    """The last one: the statistics of a network that timm trains are those of its name."""
    torch.save({"state_dict": resnet} | held, tmp_path / "last.pth.tar")
    _, found = from_file(tmp_path / "last.pth.tar")
    assert close(found.normalization, HALVES) and found.images.by


def test_timms_names_of_weights(resnet, tmp_path):
    save_file(resnet, tmp_path / "vit_tiny_patch16_224.augreg_in21k.safetensors")
    _, found = from_file(tmp_path / "vit_tiny_patch16_224.augreg_in21k.safetensors")
    assert close(found.normalization, HALVES) and found.images.by.startswith("timm, of vit_tiny")
    for name in ("resnet18.a1_in1k.safetensors", "moco.v2_300ep.safetensors"):
        save_file(resnet, tmp_path / name)
        assert close(from_file(tmp_path / name)[1].normalization, IMAGENET)


def test_openmmlabs_config(resnet):
    text = "img_norm_cfg = dict(\n    mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb="
    state = {f"backbone.{name}": tensor for name, tensor in resnet.items()}
    for rgb, style, order in (("False", "caffe", "BGR"), ("True", "pytorch", "RGB")):
        config = f"{text}{rgb})\nmodel = dict(backbone=dict(type='ResNet', style='{style}'))"
        found = recognise({"meta": {"config": config}, "state_dict": state})
        assert found.normalization["channel_order"] == order
        assert found.stride_in_1x1 is (style == "caffe")
        assert found.normalization["std"] == pytest.approx([1 / 255] * 3)


def test_caffes_networks_by_their_names(random_resnet, tmp_path):
    torch.save(random_resnet(50), tmp_path / "resnet50_caffe-788b5fa3.pth")
    _, found = from_file(tmp_path / "resnet50_caffe-788b5fa3.pth")
    assert found.stride_in_1x1 and found.normalization["channel_order"] == "BGR"
    assert any("resnet50_caffe" in note for note in found.notes)


def test_what_is_assumed_is_said(plain, tmp_path, capsys):
    report = convert(plain, tmp_path / "w.pkl")
    assert "103.53, deviation 58.395 57.12 57.375 (of 0-255), assumed" in str(report)
    convert(tmp_path / "w.pkl", tmp_path / "w.pth")  # and stays so
    assert from_file(tmp_path / "w.pth")[1].images.by == ""
    assert densessl.main(["inspect", str(plain)]) == 0
    assert "assumed: the file does not say" in capsys.readouterr().out


def test_transfer_says_which_images_the_weights_take(plain, tmp_path, caplog):
    convert(plain, tmp_path / "w.pkl", channel_order="BGR", mean=CAFFE, std=[1, 1, 1])
    cfg = compat.get_cfg()  # of a ResNet-50: refused, but said before
    with caplog.at_level(logging.INFO, "densessl"), pytest.raises(InputError, match="DEPTH"):
        weights.prepare(str(tmp_path / "w.pkl"), tmp_path, cfg)
    said = "take images BGR, mean 103.53 116.28 123.675, deviation 1 1 1 (of 0-255), by the command"
    assert said in caplog.text


CAFFE = [103.53, 116.28, 123.675]
