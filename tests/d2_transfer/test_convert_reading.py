"""What convert reads, and what it refuses to read."""

import pickle
import zipfile

import numpy
import pytest
import torch

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.convert import (
    check_detector_config,
    convert,
    read_weights,
)
from densessl.weight_files.keys import depth_of, detectron2_names, expected, fpn_to_detectron2
from densessl.weight_files.recognise import recognise

from .read_twice import read_checkpoint


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


def test_a_normalization_that_is_none(random_resnet):
    for told, words in (
        ({"mean": [0.5, 0.5]}, r"mean is \[0\.5, 0\.5\], not 3 numbers"),
        ({"std": "imagenet"}, "std is imagenet, not 3 numbers"),
        ({"channel_order": "GBR"}, "channel order is GBR"),
    ):
        with pytest.raises(InputError, match=words):
            recognise({"backbone": random_resnet(18), "method": "x", "normalization": told})


def test_half_precision_becomes_float32_exactly(random_resnet):
    state = random_resnet(18)
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    found = recognise(half)
    assert all(torch.equal(t, half[n].to(t.dtype)) for n, t in found.backbone.items())
    assert found.backbone["conv1.weight"].dtype == torch.float32
    assert found.notes == ["100 tensors were float16, and are float32 now"]
    assert not recognise(state).notes


# Files -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_flipped_bits_in_a_checkpoint(our_checkpoint, tmp_path, where):
    """torch.load itself does not compare the checksums."""
    path = our_checkpoint(tmp_path / "c.pth")
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged or truncated: Bad CRC-32"):
        read_checkpoint(path)


def test_a_checkpoint_that_is_not_the_one_of_its_sidecar(our_checkpoint, tmp_path):
    path = our_checkpoint(tmp_path / "step_00000001.pth")
    (tmp_path / "step_00000001.pth.sha256").write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", r"damaged: it is empty \(0 bytes\)"),
        (b"<html>not found</html>", "no checkpoint but a web page"),
        (b"\n<!DOCTYPE html><p>Sign in", "no checkpoint but a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "no checkpoint but a pointer of Git LFS"),
        (b"\x89PNG", "no checkpoint but a PNG"),
        (b"\x1f\x8b\x08", "no checkpoint but a gzip archive"),
        (b"\x00" * 257 + b"ustar", "no checkpoint but a tar archive"),
        (b"Access denied", r"\(13 bytes\) is no checkpoint, or is damaged"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, capsys, data, words):
    (tmp_path / "c.pth").write_bytes(data)
    with pytest.raises(InputError, match=words):
        read_checkpoint(tmp_path / "c.pth")
    assert densessl.main(["convert", str(tmp_path / "c.pth"), "-o", str(tmp_path / "w.pkl")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "Traceback" not in said.err and not said.out


def test_a_checksum_names_its_checkpoint(tmp_path):
    (tmp_path / "step_00000004.pth.sha256").write_text("ab" * 32)
    with pytest.raises(InputError, match="the checksum of step_00000004.pth;"):
        read_checkpoint(tmp_path / "step_00000004.pth.sha256")


def test_other_zip_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("weights/resnet50.pth", b"")
    with pytest.raises(InputError, match="c.zip: it is a zip archive of other"):
        read_checkpoint(tmp_path / "c.zip")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
    with pytest.raises(InputError, match="script.pt: it is a TorchScript"):
        read_checkpoint(tmp_path / "script.pt")


def test_what_is_no_backbone_is_told_by_its_names(random_resnet):
    deep = {"conv1.0.weight": torch.zeros(1), **random_resnet(18)}
    del deep["conv1.weight"]
    for file, words in (
        ({}, "file.pth holds nothing$"),
        ({"state": {0: {"step": 3}}, "param_groups": []}, "state of an optimizer and no weights"),
        ({"optimizer": {"state": {}, "param_groups": []}, "epoch": 3}, "state of an optimizer"),
        ({"state_dict": deep}, "deep stem"),
        ({"stages.0.blocks.0.conv_dw.weight": torch.zeros(1)}, "a ConvNeXt"),
        ({"model": {"stages.0.0.dwconv.weight": torch.zeros(1)}}, "a ConvNeXt"),
        ([torch.zeros(1)], "holds a list, not a dict of tensors"),
    ):
        with pytest.raises(InputError, match=words):
            recognise(file, where="file.pth")


def test_a_resnext_and_a_cifar_stem_say_which_shapes_differ(random_resnet):
    for name, shape in (
        ("layer1.0.conv2.weight", (64, 2, 3, 3)),
        ("conv1.weight", (64, 3, 3, 3)),
    ):
        other = random_resnet(18) | {name: torch.zeros(shape)}
        with pytest.raises(InputError, match=f"other shapes: {name}.*variant .deep or CIFAR"):
            recognise(other)


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


# Bombs -------------------------------------------------------------------------------------------


def test_a_zip_bomb_is_refused_before_anything_is_unpacked(tmp_path, capsys, monkeypatch):
    """A tenth of a MB that would be 300 MB, with a pickle that nobody gets to see."""
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", b"cposix\nsystem\n.")
        for number in range(300):
            archive.writestr(f"c/data/{number}", bytes(2**20))
    monkeypatch.setattr(zipfile.ZipFile, "read", None)  # whoever reads a member fails
    for verb in (["inspect"], ["convert", "-o", str(tmp_path / "w.pkl")]):
        assert densessl.main([*verb, str(tmp_path / "c.pth")]) == 2
        said = capsys.readouterr()
        assert "c.pth: its" in said.err and "unfold to 314.6 MB" in said.err
    assert not (tmp_path / "w.pkl").exists()


def test_safetensors_whose_tensors_are_the_same_bytes(tmp_path):
    entry = '{"dtype":"U8","shape":[1000],"data_offsets":[0,1000]}'
    header = ("{" + ",".join(f'"{n}":{entry}' for n in range(100)) + "}").encode()
    data = len(header).to_bytes(8, "little") + header + bytes(1000)
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="lie over each other"):
        read_checkpoint(tmp_path / "w.safetensors")


def test_a_tensor_of_one_value_a_billion_times(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1).expand(10**9)}, tmp_path / "c.pth")
    with pytest.raises(InputError, match="a tensor of 4.0 GB over 4 bytes"):
        read_checkpoint(tmp_path / "c.pth")
    torch.save({"w": torch.zeros(1).expand(10**3)}, tmp_path / "c.pth")
    assert read_checkpoint(tmp_path / "c.pth")["w"].shape == (1000,)


def test_many_storages_that_an_old_file_does_not_hold(tmp_path):
    held = {n: torch.zeros(100, dtype=torch.uint8) for n in "abcdefgh"}
    torch.save(held, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "c.pth").read_bytes()
    assert len(data) < 8 * 1500 and len(data) > 1500
    claimed = data.replace(b"Kd", b"M\xdc\x05")  # 100 as a pickle spells it -> 1500, of each
    (tmp_path / "c.pth").write_bytes(claimed)
    with pytest.raises(InputError, match="damaged or truncated"):
        read_checkpoint(tmp_path / "c.pth")


def test_zeros_that_a_pickle_asks_for(tmp_path):
    (tmp_path / "c.pkl").write_bytes(b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.")
    with pytest.raises(InputError, match=r"pickled code \(builtins\.bytearray\)"):
        read_checkpoint(tmp_path / "c.pkl")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"a": bytearray(b"xyz")}, 2))
    assert read_checkpoint(tmp_path / "c.pkl")["a"] == bytearray(b"xyz")


def test_lists_within_lists_without_end_are_counted_once(tmp_path):
    """A thousand references, eight deep: 10^24 to walk, 8 to hold."""
    held = [torch.zeros(3)]
    for _ in range(8):
        held = [held] * 1000
    torch.save({"state_dict": {}, "args": held}, tmp_path / "c.pth")
    assert densessl.main(["inspect", str(tmp_path / "c.pth")]) == 2


def test_dicts_within_dicts_without_end_are_looked_at_once():
    held: dict = {"w": torch.zeros(3)}
    for _ in range(8):
        held = {f"k{n}": held for n in range(1000)}
    with pytest.raises(InputError, match="no ViT and no ResNet"):
        recognise(held)
