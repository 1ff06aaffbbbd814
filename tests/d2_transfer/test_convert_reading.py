"""What convert reads, and what it refuses to read."""

import argparse
import pickle

import numpy
import pytest
import torch

from console.errors import InputError
from d2_transfer import compat
from d2_transfer.convert import check_detector_config, convert, read_checkpoint, read_weights
from d2_transfer.convert.keys import depth_of, detectron2_names, expected, fpn_to_detectron2
from d2_transfer.convert.layouts import recognise


@pytest.fixture(scope="module")
def weights(our_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    convert(our_checkpoint(folder / "c.pth"), folder / "w.pkl")
    return folder / "w.pkl"


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth, tensors", [(18, 120), (34, 216), (50, 318), (101, 624)])
def test_names_are_one_to_one_and_detectron2s(depth, tensors):
    compat.setup()
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import build_resnet_backbone

    names = detectron2_names(depth)
    assert len(names) == len(set(names.values())) == tensors
    assert depth_of(names) == depth
    cfg = compat.get_cfg()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM = depth, "BN"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256 if depth >= 50 else 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    with torch.device("meta"):
        state = build_resnet_backbone(cfg, ShapeSpec(channels=3)).state_dict()
    shapes = {names[name]: shape for name, shape in expected(depth).items()}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


@pytest.mark.parametrize(
    "name, place",
    [
        ("fpn_lateral4.weight", "backbone.fpn_lateral4.weight"),
        ("fpn_output3.bias", "backbone.fpn_output3.bias"),
        ("fpn_lateral5.0.weight", "backbone.fpn_lateral5.weight"),
        ("fpn_output3.1.running_var", "backbone.fpn_output3.norm.running_var"),
        ("fpn_output3.norm.running_var", "backbone.fpn_output3.norm.running_var"),
        ("fpn_lateral6.weight", None),
        ("my_fpn_lateral4.weight", None),
    ],
)
def test_fpn_names(name, place):
    assert fpn_to_detectron2(name) == place


# Layouts -----------------------------------------------------------------------------------------


def test_an_unknown_layout_lists_its_keys_and_the_known_layouts():
    with pytest.raises(InputError) as refusal:
        recognise({"epoch": 3, "arch": "vit", "weights": {}}, "auto", "file.pth")
    for word in ("file.pth", "epoch", "arch", "weights", "densessl", "torchvision"):
        assert word in str(refusal.value)


def test_what_is_near_a_resnet_says_which_tensors_are_not(random_resnet):
    wide = random_resnet(18) | {"layer1.0.conv1.weight": torch.zeros(128, 64, 3, 3)}
    with pytest.raises(InputError, match=r"layer1\.0\.conv1\.weight \(128, 64, 3, 3\)"):
        recognise(wide)
    extra = random_resnet(18) | {"layer1.0.se.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"also holds layer1\.0\.se\.weight"):
        recognise(extra)
    partial = random_resnet(18)
    del partial["layer3.0.bn2.running_mean"]
    with pytest.raises(InputError, match=r"lacks layer3\.0\.bn2\.running_mean"):
        recognise(partial)
    diverged = random_resnet(18)
    diverged["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"layer2\.0\.conv1\.weight holds NaN"):
        recognise(diverged)


def test_half_precision_becomes_float32_exactly(random_resnet):
    state = random_resnet(18)
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    found = recognise(half).backbone
    assert all(torch.equal(found[n], half[n].to(found[n].dtype)) for n in half)
    assert found["conv1.weight"].dtype == torch.float32


# Files -------------------------------------------------------------------------------------------


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickled_code_in_a_pkl_is_refused_and_not_run(tmp_path, protocol):
    bad = {"model": {}, "__author__": "x", "densessl": Malice(tmp_path / "ran")}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(bad, protocol))
    with pytest.raises(InputError, match=r"pickled code \((_?io|__builtin__|builtins)\.open\)"):
        read_weights(tmp_path / "w.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("new_format", [True, False])
def test_pickled_code_in_a_pth_is_refused_and_not_run(tmp_path, new_format):
    bad = {"backbone": {}, "method": Malice(tmp_path / "ran")}
    torch.save(bad, tmp_path / "c.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(InputError, match="pickled code"):
        read_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "ran").exists()


def test_an_object_in_a_pth_is_named(tmp_path):
    torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"pickled code \(argparse\.Namespace\)"):
        read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_pickle_protocol_are_read(tmp_path, protocol):
    held = {
        "model": {"a": numpy.arange(6, dtype="f4").reshape(2, 3), "n": numpy.int64(3)},
        "__author__": "someone",
    }
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(held, protocol))
    read = read_weights(tmp_path / "w.pkl")
    assert numpy.array_equal(read["model"]["a"], held["model"]["a"]) and read["model"]["n"] == 3


def test_arrays_pickled_by_numpy_1_are_read(tmp_path):
    data = pickle.dumps({"model": {"a": numpy.ones(2)}, "__author__": "x"}, 2)
    (tmp_path / "w.pkl").write_bytes(data.replace(b"numpy._core.", b"numpy.core."))
    assert read_weights(tmp_path / "w.pkl")["model"]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
@pytest.mark.parametrize("kind", ["pkl", "pth"])
def test_a_truncated_file(weights, our_checkpoint, tmp_path, kind, keep):
    data = (weights if kind == "pkl" else our_checkpoint(tmp_path / "whole")).read_bytes()
    end = int(keep * len(data)) if isinstance(keep, float) else keep
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[:end])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("model, facts", [([1], {}), ({"a": "text"}, {}), ({}, "facts")])
def test_a_weights_file_of_other_things_than_arrays(tmp_path, model, facts):
    held = {"model": model, "__author__": "x", "densessl": facts}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(InputError, match="not a dict of arrays"):
        read_weights(tmp_path / "w.pkl")


def test_flipped_bits_in_a_weights_file(weights, tmp_path):
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "w.pkl").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_weights(tmp_path / "w.pkl")


def test_a_checkpoint_that_is_not_the_one_of_its_sidecar(our_checkpoint, tmp_path):
    path = our_checkpoint(tmp_path / "step_00000001.pth")
    (tmp_path / "step_00000001.pth.sha256").write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "data", [b"<html>not found</html>", b"version https://git-lfs", b"\x89PNG"]
)
def test_what_is_no_checkpoint(tmp_path, data):
    (tmp_path / "c.pth").write_bytes(data)
    with pytest.raises(InputError, match="no checkpoint"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_checkpoint_is_no_weights_file_and_the_message_says_what_to_run(our_checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"densessl convert .*c\.pth -o c\.pkl"):
        read_weights(our_checkpoint(tmp_path / "c.pth"))
    with pytest.raises(InputError, match="is a folder"):
        read_weights(tmp_path)


# The detector ------------------------------------------------------------------------------------


def fitting_config():
    cfg = compat.get_cfg()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 50, 256
    cfg.MODEL.RESNETS.STRIDE_IN_1X1, cfg.INPUT.FORMAT = False, "RGB"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    return cfg


@pytest.fixture
def r50_weights(weights):
    held = read_weights(weights)
    held["densessl"]["depth"] = 50
    return held


def test_a_detector_that_agrees(r50_weights):
    check_detector_config(r50_weights, fitting_config())


@pytest.mark.parametrize(
    "key, value",
    [
        ("INPUT.FORMAT", "BGR"),
        ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
        ("MODEL.RESNETS.STRIDE_IN_1X1", True),
        ("MODEL.RESNETS.DEPTH", 101),
        ("MODEL.RESNETS.NUM_GROUPS", 32),
    ],
)
def test_a_detector_that_disagrees_is_refused_by_key(r50_weights, key, value):
    cfg = fitting_config()
    cfg.merge_from_list([key, value])
    with pytest.raises(InputError) as refusal:
        check_detector_config(r50_weights, cfg)
    assert f"{key} is {value}" in str(refusal.value)
    assert str(refusal.value).count("the weights need") == 1


def test_detectron2s_defaults_disagree_in_four_keys(r50_weights):
    with pytest.raises(InputError) as refusal:
        check_detector_config(r50_weights, compat.get_cfg())
    assert str(refusal.value).count("the weights need") == 4


def test_a_c4_head_cannot_take_a_resnet18(weights):
    cfg = fitting_config()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    with pytest.raises(InputError, match="Res5ROIHeads"):
        check_detector_config(read_weights(weights), cfg)
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    check_detector_config(read_weights(weights), cfg)


def test_weights_of_others_tell_nothing_and_are_refused(r50_weights):
    del r50_weights["densessl"]
    with pytest.raises(InputError, match="densessl convert"):
        check_detector_config(r50_weights, fitting_config())
