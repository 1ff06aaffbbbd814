"""Networks that only their names tell from a plain ResNet, and what a proof says."""

import argparse
import json

import pytest
import timm
import torch
from safetensors.torch import save_file

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer.convert import convert
from densessl.weight_files import keys, origin
from densessl.weight_files.recognise import from_file, recognise


@pytest.fixture(scope="module")
def blurred():
    """timm's resnetblur18: a plain ResNet-18's tensors, and another network."""
    torch.manual_seed(0)
    return timm.create_model("resnetblur18", num_classes=2).state_dict()


def test_it_has_a_plain_networks_tensors_and_the_proof_says_what_it_proves(blurred, tmp_path):
    """Nothing in the file tells: what is said is what holds."""
    torch.save(blurred, tmp_path / "weights.pth")
    report = convert(tmp_path / "weights.pth", tmp_path / "w.pkl")
    assert "equal to torchvision's resnet18 with these weights" in str(report)
    report = convert(tmp_path / "weights.pth", tmp_path / "w.safetensors")
    assert "equal to torchvision's resnet18 with these weights" in str(report)


@pytest.mark.parametrize(
    "place, beside",
    [
        ("resnetblur18.a1_in1k.safetensors", {}),
        ("resnetblur18-84f4748f.pth", {}),
        ("resnetblur18.bt_in1k/model.safetensors", {}),
        ("models--timm--resnetblur18.bt_in1k/snapshots/0a1b/pytorch_model.bin", {}),
        ("x/model.safetensors", {"architecture": "resnetblur18"}),
        ("x/weights.pth", {"pretrained_cfg": {"architecture": "resnetblur18"}}),
        ("x/weights.pth", {"architecture": "resnet18", "model_args": {"aa_layer": "blurpool"}}),
    ],
)
def test_the_name_and_config_json_tell(blurred, tmp_path, capsys, place, beside):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if beside:
        path.with_name("config.json").write_text(json.dumps(beside))
    (save_file if path.suffix == ".safetensors" else torch.save)(blurred, path)
    out = tmp_path / "w.pkl"
    assert densessl.main(["convert", str(path), "-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "blur" in said and not out.exists()
    assert densessl.main(["inspect", str(path)]) == 2


@pytest.mark.parametrize(
    "held",
    [
        {"arch": "resnetblur18"},
        {"args": argparse.Namespace(model="resnetblur18")},
        {"args": {"arch": "timm/resnetblur18.bt_in1k"}},
        {"hyper_parameters": {"backbone": {"name": "resnetblur18"}}},
        {"hyper_parameters": {"cfg": {"backbone": "resnetblur18"}}},
        {"default_cfg": {"architecture": "resnetblur18", "mean": [0.5] * 3, "std": [0.5] * 3}},
    ],
)
def test_the_file_itself_tells(blurred, tmp_path, held):
    torch.save({"state_dict": blurred} | held, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"c\.pth: \w+.* says '(timm/)?resnetblur18.*blur pooling"):
        from_file(tmp_path / "c.pth")


def test_safetensors_metadata_tell(blurred, tmp_path):
    for metadata in (
        {"architecture": "resnetblur18"},
        {"pretrained_cfg": json.dumps({"architecture": "resnetblur18"})},
    ):
        save_file(blurred, tmp_path / "w.safetensors", metadata)
        with pytest.raises(InputError, match=r"its metadata .*'resnetblur18'.*blur pooling"):
            from_file(tmp_path / "w.safetensors")


def test_openmmlabs_config_tells(blurred):
    text = (
        "model = dict(\n    type='MoCo',\n    backbone=dict(\n        type='ResNetV1d', depth=18))"
    )
    held = {"meta": {"cfg": text}, "state_dict": {f"backbone.{n}": t for n, t in blurred.items()}}
    with pytest.raises(InputError, match="its config says 'ResNetV1d'"):
        recognise(held)
    held["meta"]["cfg"] = text.replace("ResNetV1d", "ResNet")
    assert recognise(held).layout == "backbone"


PLAIN = """
    resnet18 resnet50 resnet101 tv_resnet50 gluon_resnet50_v1b ssl_resnet50 swsl_resnet18 ResNet
    resnet50.a1_in1k timm/resnet50.tv2_in1k resnet50x1 moco_resnet50_v2.pth base_resnet50
    imagenet_resnet50 resnet50_d2.pth resnet18_224x224 my_x_resnet50 resnet50-0676ba61.pth vit_small
    wide_resnet50_2 resnext50_32x4d ig_resnext101_32x8d
    resnet50_caffe checkpoint_0199.pth.tar backbone_final.pth
"""
NOT_PLAIN = """
    resnet50d resnet50c resnet50s resnet50t resnet50_gn resnetv2_50 resnetaa50 resnetrs50
    seresnet50 legacy_seresnet18 ecaresnet50t skresnet50 resnest50d res2net50_26w_4s
    resnext50d_32x4d resnext26ts ig_resnext101_32x16d gcresnet50t nf_resnet50 cspresnet50
    lambda_resnet26t resnet50_clip resnet50w2 resnet50x4 gluon_resnet50_v1d ResNeXt SEResNet
    ResNetV1c tresnet_m resnet50_ibn_a timm/resnetblur50.bt_in1k resnet50d_ra2-464e36ba.pth
"""


def test_names_of_variants_and_of_plain_networks():
    assert [name for name in PLAIN.split() if origin.variant(name)] == []
    assert [name for name in NOT_PLAIN.split() if not origin.variant(name)] == []


def test_every_resnet_that_timm_builds_with_a_plain_ones_tensors_has_a_variants_name():
    """But for the plain ones themselves."""
    plain = set(keys.NETWORKS) & {*timm.list_models(module="resnet")}
    builders = [n for n in timm.list_models(module="resnet") if not origin.variant(n)]
    assert plain <= set(builders)
    for name in set(builders) - plain:
        with torch.device("meta"):
            state = timm.create_model(name).state_dict()
        with pytest.raises(InputError):  # another depth
            recognise(state)


def test_config_json_of_other_weights_tells_nothing(blurred, tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "resnetblur18"}')
    for name in ("a.pth", "b.pth"):
        torch.save(blurred, tmp_path / name)
    assert from_file(tmp_path / "a.pth")[1].network == "resnet18"
    for text in ("[]", "{", '"text"'):
        (tmp_path / "config.json").write_text(text)
        torch.save(blurred, tmp_path / "pytorch_model.bin")
        assert from_file(tmp_path / "pytorch_model.bin")[1].network == "resnet18"
